//! kernel side
fn main() {}
