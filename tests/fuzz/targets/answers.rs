//! What a client reads of a supervisor of another version, or of whoever listens there: the decoder, and what is made of it.

use super::one_line;
use hermes_sup::control::codec::{decode_reply, encode_reply};
use hermes_sup::control::protocol::{Part, Reply, ServiceStatus, SupervisorStatus};
use hermes_sup::monitor::{chart, prometheus, verdict};

pub fn run(document: &[u8]) {
    let (mut supervisor, mut services): (Option<SupervisorStatus>, Vec<ServiceStatus>) = (None, Vec::new());
    for frame in document.split(|byte| *byte == 0) {
        match decode_reply(frame) {
            Ok(reply) => {
                if let Ok(encoded) = encode_reply(&reply) {
                    let again = decode_reply(&encoded[..encoded.len() - 1]);
                    // One that was too long is shortened, and stays what it was.
                    assert_eq!(again.map(|again| kind(&again)), Ok(kind(&reply)));
                }
                match reply {
                    Reply::Part(Part::Supervisor(status)) => supervisor = Some(*status),
                    Reply::Part(Part::Service(status)) => services.push(*status),
                    Reply::Part(_) | Reply::End | Reply::Refused(_) => {}
                }
            }
            Err(refusal) => one_line(&refusal.message),
        }
    }
    for service in &services {
        let _ = (verdict::fault(service, true), verdict::has_failed(service));
    }
    let _ = verdict::judge(&services, false).is_well();
    if let Some(supervisor) = supervisor {
        let text = prometheus::text(&supervisor, &services);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a metric that is more than a line");
    }
    if let Some(drawn) = chart::chart(&services) {
        let _ = (chart::text(&drawn), chart::svg(&drawn));
    }
}

fn kind(reply: &Reply) -> (std::mem::Discriminant<Reply>, Option<std::mem::Discriminant<Part>>) {
    let part = match reply {
        Reply::Part(part) => Some(std::mem::discriminant(part)),
        Reply::End | Reply::Refused(_) => None,
    };
    (std::mem::discriminant(reply), part)
}
