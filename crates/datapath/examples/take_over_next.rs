//! [`take_over`] of the ABI version that there is none of yet: built with the feature `abi-next` only.

#[path = "take_over.rs"]
mod take_over;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    take_over::main()
}
