//! What services say of themselves: datagrams on the notify socket, answers to HTTP probes, and labels of archives.

use super::one_line;
use hermes_sup::core::notify::Message;
use hermes_sup::log::tai64n::Label;
use hermes_sup::probe::Expected;
use hermes_sup::probe::http::Reply;

pub fn run(document: &[u8]) {
    let message = Message::parse(document);
    message.status.iter().for_each(|status| one_line(status));
    // However it comes, the verdict is one.
    assert_eq!(
        verdict(document, 1),
        verdict(document, document.len().max(1)),
        "it depends on how the answer comes"
    );
    let text = String::from_utf8_lossy(document);
    for word in text.split_whitespace() {
        let _ = Label::parse(word);
    }
}

fn verdict(document: &[u8], size: usize) -> String {
    let mut reply = Reply::new(Expected { status: 200, contains: Some("ok".to_owned()) });
    for part in document.chunks(size) {
        if let Some(verdict) = reply.take(part) {
            return format!("{verdict:?}");
        }
    }
    format!("{:?}", reply.ended())
}
