#[test]
fn rooms() {}
