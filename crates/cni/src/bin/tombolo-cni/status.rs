//! STATUS: whether an ADD could be served. Prints nothing where it could.

use std::time::Duration;

use tombolo_cni::Config;
use tombolo_cni::agent::READY_PATH;
use tombolo_cni::error::{Error, Result, code};

use crate::client::{Client, Failure};

/// How long the agent may take to say so: runtimes ask often, and wait.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(stdin: &[u8]) -> Result<()> {
    let config = Config::parse(stdin)?;
    config.check_supported()?;
    let client = Client {
        timeout: config.timeout.min(PATIENCE),
        ..Client::of(&config)
    };
    match client.exchange("GET", READY_PATH, &[]) {
        Ok(_) => Ok(()),
        Err(Failure::Refused(body)) if body.code == code::LIMITED_CONNECTIVITY => Err(body.into()),
        // Pods keep their connectivity without the agent, so its absence is no more than this.
        Err(failure) => Err(Error {
            code: code::NOT_AVAILABLE,
            ..failure.into()
        }),
    }
}
