//! The plugin and its configuration, where the container runtime looks for them.
//!
//! ```text
//! tombolo-cni ─┬──▶ <cni-bin-dir>/tombolo-cni             at once
//!              └──▶ <cni-bin-dir>/loopback                where there is none: runtimes want one beside ours
//! conflist.rs ────▶ <cni-conf-dir>/10-tombolo.conflist    when pods can be served, and from then on for ever
//!                      │ put there by rename (file.rs)
//!                      └ what was there before: kept in <state-dir>/installed (place.rs) until `uninstall`
//! ```
//!
//! A runtime takes the first configuration of its folder in the order of names. Whether that calls our plugin, and
//! what else it does, is in `effective.rs`.

mod conflist;
mod effective;
mod error;
mod file;
mod place;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tombolo_cni::PLUGIN_NAME;

pub use self::effective::Effective;
pub use self::error::Error;
use self::place::{Content, Place};
use crate::{Args, reserved_ports, socket};

/// The configuration's file. Few others sort before it.
pub const CONFLIST_FILE: &str = "10-tombolo.conflist";

/// Where it is kept, inside the state folder, what was installed and what was there before.
const RECORDS: &str = "installed";

/// Keeps plugin and configuration where the runtime looks for them.
#[derive(Debug)]
pub struct Installer {
    plugin: Option<Plugin>,
    conflist: Option<(Vec<u8>, Place)>,
}

#[derive(Debug)]
struct Plugin {
    source: PathBuf,
    place: Place,
    loopback: Place,
}

impl Installer {
    /// For the folders that the arguments name; without any it installs nothing.
    ///
    /// # Errors
    /// The paths cannot be made absolute, or the plugin is not where it is said to be.
    pub fn new(args: &Args) -> Result<Self, Error> {
        let records = absolute(&args.state_dir)?.join(RECORDS);
        let plugin = args.install.cni_bin_dir.as_deref().map(|folder| {
            let source = match &args.install.cni_plugin {
                Some(chosen) => chosen.clone(),
                None => beside_this_program()?,
            };
            // Once now, so that a wrong path ends the agent at its start rather than trouble it later.
            File::open(&source).map_err(Error::plugin(&source))?;
            let folder = absolute(folder)?;
            Ok(Plugin {
                source,
                place: Place::plugin(folder.join(PLUGIN_NAME), &records),
                loopback: Place::loopback(folder.join("loopback"), &records),
            })
        });
        let conflist = args.install.cni_conf_dir.as_deref().map(|folder| {
            let text = conflist::text(&absolute(&args.socket)?, &absolute(&args.state_dir)?);
            let target = absolute(folder)?.join(CONFLIST_FILE);
            Ok((text, Place::conflist(target, &records)))
        });
        Ok(Self {
            plugin: plugin.transpose()?,
            conflist: conflist.transpose()?,
        })
    }

    /// Puts the plugin in its place, unless this very one is there.
    ///
    /// # Errors
    /// Then what was there before still is.
    pub fn install_plugin(&mut self) -> Result<(), Error> {
        let Some(Plugin {
            source,
            place,
            loopback,
        }) = &mut self.plugin
        else {
            return Ok(());
        };
        place.install(Content::File(source))?;
        loopback.install_if_free(Content::File(source))
    }

    /// Puts the configuration in its place, which tells the runtime that pods can be served. Gives what the
    /// runtime makes of its folder then; none where no folder is known.
    ///
    /// # Errors
    /// Then what was there before still is.
    pub fn install_conflist(&mut self) -> Result<Option<Effective>, Error> {
        let Some((text, place)) = &mut self.conflist else {
            return Ok(None);
        };
        place.install(Content::Bytes(text))?;
        effective::of(place.target()).map(Some)
    }
}

/// Takes plugin and configuration away again and puts back what was there before; whatever was installed into
/// other folders by earlier agents is gone already. Gives back the ports that were kept for translated flows. Gives
/// the paths that changed. Does nothing where there is nothing of an agent's.
///
/// # Errors
/// An agent runs, which would install them again; or a file cannot be changed.
pub fn uninstall(state_dir: &Path) -> Result<Vec<PathBuf>, crate::Error> {
    let records = absolute(state_dir)?.join(RECORDS);
    if !records.exists() && !reserved_ports::is_recorded(state_dir) {
        return Ok(Vec::new());
    }
    let _lock = socket::lock(state_dir, Duration::ZERO)?;
    // The configuration first: a runtime that has it would miss the plugin.
    let restored =
        [place::CONFLIST, place::LOOPBACK, place::PLUGIN].map(|kind| place::restore(&records, kind));
    let mut changed = Vec::new();
    for path in restored {
        changed.extend(path?);
    }
    changed.extend(reserved_ports::restore(state_dir)?);
    Ok(changed)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::read(path))
}

fn beside_this_program() -> Result<PathBuf, Error> {
    let own = Path::new("/proc/self/exe");
    let program = own.read_link().map_err(Error::read(own))?;
    Ok(program.with_file_name(PLUGIN_NAME))
}
