//! What hermes tries in a container against what is not its to end or to keep.

use crate::harness::*;

/// Attaches to the service `victim`, and to what holds it: the supervisor, its fork server and the keepers. What it has got it
/// never lets go.
const SPY: &str = r#"
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
SEIZE, TRACEEXIT = 0x4206, 0x40

def seize(pid):
    return libc.ptrace(SEIZE, pid, None, TRACEEXIT) == 0

def read(pid, file):
    try:
        return open(f"/proc/{pid}/{file}").read()
    except OSError:
        return ""

for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
    if read(pid, "cmdline").endswith("\0victim\0"):
        print("victim:", seize(pid), flush=True)
    elif pid == 1 or read(pid, "comm").startswith("hermes-"):
        print("holder:", seize(pid), flush=True)
print("tried", flush=True)
while True:
    signal.pause()
"#;

/// A debugger that never answers: a process of the tree that ends waits for it, and a dead one cannot be reaped.
#[test]
fn a_tracer_of_the_same_user_keeps_no_tree_from_ending() {
    for variant in [&PLAIN, &CGROUP_RW, &USER_10000] {
        let container = Run::new().variant(variant).cmd(&["sleep", "infinity"]).supervised();
        let plant = format!(
            "mkdir -p /opt/data/services; cd /opt/data/services\ncat >/opt/data/spy.py <<'END'\n{SPY}\nEND\n\
             echo 'command = [\"sh\", \"-c\", \"sleep 1000 & wait\", \"victim\"]' >victim.toml\n\
             printf '%s\n' 'after = [\"victim\"]' 'command = [\"/opt/hermes/.venv/bin/python\", \"/opt/data/spy.py\"]' >spy.toml"
        );
        container.exec_as("10000", &["sh", "-euc", &plant]).ok();
        container.ctl(&["reload"]).ok();
        container.await_up(&["victim", "spy"]);
        let tried = eventually("the spy has tried", || {
            let log = container.ctl(&["logs", "spy"]).out;
            log.contains("tried").then_some(log)
        });
        assert!(tried.contains("victim: ") && !tried.contains("holder: True"), "{}: {tried}", variant.rung);
        container.ctl(&["stop", "victim"]).ok();
        assert_eq!(container.pgrep("^sleep 1000$"), "", "{}", variant.rung);
        if tried.contains("victim: True") {
            assert!(container.logs().contains("is traced by pid "), "{}", container.logs());
        }
        container.stop();
        assert_eq!(container.wait(), 0, "{}", container.logs());
    }
}
