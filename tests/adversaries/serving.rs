//! Services that listen, answer, or say how they are; and those that stop doing so.

use super::ends::timer;
use super::tools::{complain, forever, say};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Milliseconds.
const BEAT: u64 = 50;

/// Listens at `address`, once the file `gate` is there if one is named. Answers every request with `well`, while there is no
/// `/tmp/hang`; then it accepts and says nothing.
pub fn serve(address: &str, gate: Option<&str>) -> i32 {
    say("ready serve");
    let timer = timer(BEAT);
    while gate.is_some_and(|gate| !Path::new(gate).exists()) {
        let _ = rustix::io::read(&timer, &mut [0u8; 8][..]);
    }
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) => {
            complain(&format!("adversary: {address}: {error}"));
            return 1;
        }
    };
    say("listens");
    let mut held = Vec::new();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        if Path::new("/tmp/hang").exists() {
            held.push(stream);
            continue;
        }
        let mut request = [0; 1024];
        if stream.read(&mut request).is_ok_and(|count| count > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell");
        }
    }
    0
}

fn notify(text: &str) {
    let Ok(address) = std::env::var("NOTIFY_SOCKET") else { return complain("adversary: no NOTIFY_SOCKET") };
    let sent = UnixDatagram::unbound().and_then(|socket| match address.strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(text.as_bytes(), &address)
        }
        None => socket.send_to(text.as_bytes(), &address),
    });
    if let Err(error) = sent {
        complain(&format!("adversary: {address}: {error}"));
    }
}

/// Says each of these on its notify socket, then waits.
pub fn notifies(messages: &[String]) -> i32 {
    say("ready notifies");
    messages.iter().filter(|text| text.contains('=')).for_each(|text| notify(text));
    say("notified");
    forever()
}

/// Gives signs of life while there is no `/tmp/silent`.
pub fn beats() -> i32 {
    say(&format!("ready beats {}", std::env::var("WATCHDOG_USEC").unwrap_or_default()));
    let timer = timer(BEAT);
    loop {
        if !Path::new("/tmp/silent").exists() {
            notify("WATCHDOG=1");
        }
        let _ = rustix::io::read(&timer, &mut [0u8; 8][..]);
    }
}

static HANGS: AtomicBool = AtomicBool::new(false);

extern "C" fn hang(_: libc::c_int) {
    HANGS.store(true, Ordering::Relaxed);
}

/// `heart FILE HOW`: an event loop that writes FILE again and again. At USR1 it hangs: it was stopped (`stop`), spins (`spin`), or
/// waits for what never comes (`wait`).
pub fn heart(file: &str, how: &str) -> i32 {
    let handler: extern "C" fn(libc::c_int) = hang;
    // SAFETY: the handler does nothing but store.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    let timer = timer(BEAT * 4);
    let mut beats = 0_u64;
    while !HANGS.load(Ordering::Relaxed) {
        beats += 1;
        if let Err(error) = std::fs::write(file, beats.to_string()) {
            complain(&format!("adversary: {file}: {error}"));
            return 1;
        }
        if beats == 1 {
            say("ready heart");
        }
        let _ = rustix::io::read(&timer, &mut [0u8; 8][..]);
    }
    say("hangs");
    match how {
        "stop" => {
            // SAFETY: no memory involved.
            unsafe { libc::raise(libc::SIGSTOP) };
        }
        "spin" => {
            // Twenty of them would leave the rest of the machine nothing.
            // SAFETY: no memory involved.
            unsafe { libc::nice(19) };
            loop {
                std::hint::spin_loop();
            }
        }
        _ => {
            let (reader, _writer) = rustix::pipe::pipe().expect("a pipe");
            let _ = rustix::io::read(&reader, &mut [0u8; 8][..]);
        }
    }
    forever()
}
