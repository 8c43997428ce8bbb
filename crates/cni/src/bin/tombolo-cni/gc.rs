//! GC: has the agent remove what none of the network's valid attachments holds. Prints nothing where all of it
//! is removed.

use tombolo_cni::Config;
use tombolo_cni::agent::{COLLECT_PATH, CollectRequest};
use tombolo_cni::error::Result;

use crate::client::Client;

pub fn run(stdin: &[u8]) -> Result<()> {
    let config = Config::parse(stdin)?;
    let request = CollectRequest {
        network: config.name.clone(),
        valid: config.valid_attachments()?,
    };
    Ok(Client::of(&config).post(COLLECT_PATH, &request).map(drop)?)
}
