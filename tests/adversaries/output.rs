//! Programs that write in awkward ways.

use crate::ends::timer;
use crate::tools::{complain, forever, say, write_all};

/// `tick MILLIS`: a counter, one line each time.
pub fn tick(millis: u64) -> i32 {
    let timer = timer(millis.max(1));
    say("ready tick");
    for count in 1u64.. {
        let _ = rustix::io::read(&timer, &mut [0u8; 8][..]);
        say(&format!("tick {count}"));
    }
    0
}

/// `flood N SIZE`: exactly N numbered lines of at least SIZE bytes as fast as they are taken, then exit 0.
pub fn flood(lines: u64, size: u64) -> i32 {
    let filler = "x".repeat(usize::try_from(size).unwrap_or(60).saturating_sub(16));
    let mut block = Vec::with_capacity(1 << 16);
    for count in 1..=lines {
        block.extend_from_slice(format!("flood {count:09} {filler}\n").as_bytes());
        if block.len() > 32 * 1024 {
            write_all(libc::STDOUT_FILENO, &block);
            block.clear();
        }
    }
    block.extend_from_slice(b"flood done\n");
    write_all(libc::STDOUT_FILENO, &block);
    0
}

/// `long-line BYTES`: one line of that length, then `ready`.
pub fn long_line(bytes: u64) -> i32 {
    let mut line = vec![b'L'; usize::try_from(bytes).unwrap_or(0)];
    line.push(b'\n');
    write_all(libc::STDOUT_FILENO, &line);
    say("ready long-line");
    forever()
}

/// A last line without its end, then a crash.
pub fn torn_line() -> i32 {
    say("ready torn-line");
    write_all(libc::STDOUT_FILENO, b"torn without end");
    1
}

/// `both-streams N`: N lines on each stream.
pub fn both_streams(lines: u64) -> i32 {
    for count in 1..=lines {
        say(&format!("out {count}"));
        complain(&format!("err {count}"));
    }
    say("ready both-streams");
    forever()
}

/// Closes all three standard descriptors and lives on.
pub fn closes_stdout() -> i32 {
    say("ready closes-stdout");
    // SAFETY: nothing here uses them afterwards.
    unsafe {
        for fd in 0..3 {
            libc::close(fd);
        }
    }
    forever()
}

/// `holds-fds N`: keeps N descriptors open and leaves a daemon behind that holds the output.
pub fn holds_fds(count: u64) -> i32 {
    let held: Vec<_> = (0..count).filter_map(|_| std::fs::File::open("/dev/null").ok()).collect();
    crate::tools::daemonise(|| crate::tools::stubborn());
    say(&format!("holding {}", held.len()));
    say("ready holds-fds");
    forever()
}

/// `leaves-socket PATH`: listens there and ends; a child that knows nothing of it holds a copy of its socket.
pub fn leaves_socket(path: &str) -> i32 {
    let listener = std::os::unix::net::UnixListener::bind(path).expect("a socket");
    let own = std::env::current_exe().expect("a program");
    let holder =
        std::process::Command::new(own).arg("pause").stdin(std::os::fd::OwnedFd::from(listener)).spawn();
    drop(holder.expect("a process"));
    0
}

/// `impostor PATH`: listens there as if it were the supervisor, and says what it is asked.
pub fn impostor(path: &str) -> i32 {
    use std::io::Read;
    // SAFETY: SIG_IGN is no function of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let listener = std::os::unix::net::UnixListener::bind(path).expect("a socket");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("a mode");
    say("ready impostor");
    for mut stream in listener.incoming().flatten() {
        let mut asked = [0u8; 4096];
        match stream.read(&mut asked) {
            Ok(count) if count > 0 => say(&format!("asked {count} bytes")),
            _ => say("hung up"),
        }
        write_all(std::os::fd::AsRawFd::as_raw_fd(&stream), b"{\"parameters\":{}}\0");
    }
    0
}
