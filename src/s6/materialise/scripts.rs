//! The scripts of a gateway's slot: `run`, `finish` and `log/run`.

use super::GatewaySlot;
use std::os::unix::ffi::OsStrExt;

/// An exit with 0 was meant, one with 78 (EX_CONFIG of sysexits(3)) would only happen again: 125 tells s6 to stay down.
pub(super) const FINISH: &str = "\
#!/command/with-contenv sh
case \"$1\" in
  0 | 78) exit 125 ;;
esac
exit 0
";

pub(super) fn run_script(wanted: &GatewaySlot<'_>) -> Vec<u8> {
    let GatewaySlot { profile, home, user, .. } = wanted;
    let home = quoted(home.as_os_str().as_bytes());
    let user = quoted(user.as_bytes());
    // Without -p it is the root profile; `-p default` would be one of that name.
    let mut command = b"hermes ".to_vec();
    if profile.profile() != "default" {
        command.extend(b"-p ");
        command.extend(quoted(profile.profile().as_bytes()));
        command.push(b' ');
    }
    command.extend(b"gateway run --replace");
    let mut script = b"#!/command/with-contenv sh\nset -e\nexport HOME=".to_vec();
    script.extend(&home);
    script.extend(b"\ncd ");
    script.extend(&home);
    script.extend(b"\nexport HERMES_S6_SUPERVISED_CHILD=1\nexport HERMES_SUPERVISED_CHILD=1\n");
    script.extend(b"[ \"$(id -u)\" = 0 ] || exec ");
    script.extend(&command);
    script.extend(b"\nexec s6-setuidgid ");
    script.extend(&user);
    script.push(b' ');
    script.extend(&command);
    script.push(b'\n');
    script
}

/// Only a real s6-supervise runs it: our own logger takes its place.
pub(super) fn log_script(wanted: &GatewaySlot<'_>) -> Vec<u8> {
    let mut script = b"#!/command/with-contenv sh\nset -e\n: \"${HERMES_HOME:=".to_vec();
    // Inside the quotes of an expansion only these four mean something.
    for byte in wanted.home.as_os_str().as_bytes() {
        if b"\"\\$`}".contains(byte) {
            script.push(b'\\');
        }
        script.push(*byte);
    }
    script.extend(b"}\"\nlogs=\"$HERMES_HOME\"/logs/gateways/");
    script.extend(quoted(wanted.profile.as_str().as_bytes()));
    script.extend(b"\nas=\n[ \"$(id -u)\" != 0 ] || as='s6-setuidgid '");
    script.extend(quoted(wanted.user.as_bytes()));
    script.extend(
        b"\n$as mkdir -p \"$logs\"\n$as rm -f \"$logs/lock\"\nexec $as s6-log 1 n10 s1000000 T \"$logs\"\n",
    );
    script
}

/// As one word of a POSIX shell; plain words stay as they are.
fn quoted(text: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    if !text.is_empty() && text.iter().all(plain) {
        return text.to_vec();
    }
    let mut word = vec![b'\''];
    for byte in text {
        match byte {
            b'\'' => word.extend(b"'\\''"),
            _ => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}
