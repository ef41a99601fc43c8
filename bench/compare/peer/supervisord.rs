//! supervisord, a Python program that looks once a second. It keeps output in rotated files, without times.

use super::{All, Peer, Service, Verb, words};
use crate::world::{Layout, World};
use std::io;
use std::path::PathBuf;

const HEAD: &str = "\
[supervisord]
nodaemon = true
user = root
logfile = /dev/null
logfile_maxbytes = 0
pidfile = /run/supervisord.pid
minfds = 16384
minprocs = 8192
[unix_http_server]
file = /run/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix:///run/supervisor.sock
";

pub struct Supervisord {
    pub version: String,
}

impl Peer for Supervisord {
    fn name(&self) -> &'static str {
        "supervisord"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn most(&self) -> (usize, &'static str) {
        (100, "starts and stops them in tens of seconds beyond that")
    }

    fn kept(&self, world: &World, service: &str) -> Vec<PathBuf> {
        let older = (1..).map(|number| world.path(&format!("/opt/data/{service}.log.{number}")));
        let mut files: Vec<PathBuf> = older.take_while(|path| path.exists()).collect();
        files.reverse();
        files.push(world.path(&format!("/opt/data/{service}.log")));
        files
    }

    fn prepare(&self, world: &Layout, services: &[Service]) -> io::Result<()> {
        let mut text = HEAD.to_owned();
        for service in services {
            let output = match service.logged {
                Some(keep) => format!(
                    "stdout_logfile = /opt/data/{}.log\nstdout_logfile_maxbytes = 1MB\nstdout_logfile_backups = {keep}\n",
                    service.name
                ),
                None => "stdout_logfile = NONE\n".to_owned(),
            };
            text.push_str(&format!(
                "[program:{}]\ncommand = {}\nautorestart = true\nautostart = {}\nstderr_logfile = NONE\n{output}",
                service.name,
                service.argv().join(" "),
                service.up
            ));
        }
        world.write("/run/supervisord.conf", &text, 0o644)
    }

    fn command(&self, _: &[Service]) -> Vec<String> {
        words("/usr/bin/supervisord -c /run/supervisord.conf")
    }

    fn control(&self, verb: Verb, service: &str) -> Vec<String> {
        let verb = match verb {
            Verb::Status => "status",
            Verb::Start => "start",
            Verb::Stop => "stop",
        };
        words(&format!("/usr/bin/supervisorctl -c /run/supervisord.conf {verb} {service}"))
    }

    fn control_all(&self, verb: All, _: &[Service]) -> Option<Vec<String>> {
        let verb = match verb {
            All::Status => "status",
            All::Start => "start all",
            All::Stop => "stop all",
        };
        Some(words(&format!("/usr/bin/supervisorctl -c /run/supervisord.conf {verb}")))
    }
}
