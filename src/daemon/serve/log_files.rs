//! `log-files`: the open log files of a service, for its user whom the way to them is closed to (a `logs` directory of an older
//! release is the gateway user's alone, and to open it would open the logs of others).
//!
//! They are opened where a disk may be waited for, with the file access of whom they belong to: nothing is handed out that this user
//! could not read, and who may act on the service may read what it wrote.

use crate::control::protocol::{LogFile, Outcome, Part, RefusalKind, Reply};
use crate::control::server::ConnId;
use crate::core::fleet::ServiceId;
use crate::daemon::act::{Action, FileWork};
use crate::daemon::execute::log_dir;
use crate::daemon::services::launch::log_owner;
use crate::daemon::{Notice, Supervisor};
use crate::log::{Handed, open_newest};
use std::io;
use std::sync::Arc;

/// Archives that are handed out with `current`.
const ARCHIVES: usize = 16;
/// So many callers at once.
const CALLERS: usize = 8;

/// Callers whose files are being opened.
#[derive(Debug, Default)]
pub struct Handing(Vec<ConnId>);

impl Handing {
    pub fn is_busy(&self) -> bool {
        !self.0.is_empty()
    }

    pub fn caller_is_gone(&mut self, conn: ConnId) {
        self.0.retain(|waiting| *waiting != conn);
    }
}

impl Supervisor {
    /// Opens the files of the one service that is meant and permitted.
    pub(in crate::daemon) fn hand_out_logs(
        &mut self,
        conn: ConnId,
        ids: &[ServiceId],
        complaints: Vec<Outcome>,
    ) {
        complaints.into_iter().for_each(|complaint| self.part(conn, complaint));
        let id = match *ids {
            [] => return self.reply(conn, &Reply::End),
            [id] => id,
            [..] => {
                return self.refuse(conn, RefusalKind::TooLarge, "ask for the log of one service at a time");
            }
        };
        if self.handing.0.len() >= CALLERS {
            return self.refuse(conn, RefusalKind::Busy, "too many logs are being opened: try again later");
        }
        let Some(service) = self.services.get(&id) else { return self.reply(conn, &Reply::End) };
        let user = match self.surroundings.lookup(&service.definition.user) {
            Ok(user) => user,
            Err(error) => return self.refuse(conn, RefusalKind::Failed, error.to_string()),
        };
        let name = service.name.to_string();
        let (home, dir) = (self.options.home.clone(), log_dir(service));
        let (credentials, refused) = (log_owner(&user, &self.surroundings), name.clone());
        let work =
            move || Notice::LogFiles { conn, service: name, files: open_newest(&home, &dir, ARCHIVES) };
        let refused = move |why| Notice::LogFiles { conn, service: refused.clone(), files: Err(why) };
        self.handing.0.push(conn);
        self.carry_out(vec![Action::Files(FileWork {
            credentials,
            work: Box::new(work),
            refused: Arc::new(refused),
        })]);
    }

    /// They are open, or why not.
    pub(in crate::daemon) fn log_files_opened(
        &mut self,
        conn: ConnId,
        service: &str,
        files: io::Result<Vec<Handed>>,
    ) {
        // A caller who has gone gets nothing: its number is another's by now.
        let Some(at) = self.handing.0.iter().position(|waiting| *waiting == conn) else { return };
        self.handing.0.swap_remove(at);
        match files {
            Err(why) => self.refuse(conn, RefusalKind::Failed, format!("the log of '{service}': {why}")),
            Ok(files) => {
                for (file, open) in files {
                    let part = Part::LogFile(LogFile { service: service.to_owned(), file });
                    self.server.reply_with(&self.wakeups.registry, conn, &part, open);
                }
                self.reply(conn, &Reply::End);
            }
        }
    }
}
