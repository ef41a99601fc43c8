#[test] fn rooms() {}
