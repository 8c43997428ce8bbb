//! Load, pin, reuse, replace.

mod common;

use common::Bed;
use tombolo_datapath::requirements;

#[test]
fn this_machine_has_what_is_needed() {
    assert_eq!(requirements(), []);
}

#[test]
fn the_object_loads() {
    let bed = Bed::new();
    let begun = std::time::Instant::now();
    let datapath = bed.load();
    println!("loaded in {:?}", begun.elapsed());
    assert_eq!(datapath.counters().unwrap(), []);
}
