//! The object that the kernel side was built to: from its bytes to maps and programs in the kernel.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use aya_obj::{Object, ParseError, btf::BtfFeatures};
use tombolo_abi::{Hook, map};

use crate::{
    Error, Result,
    bpf::{
        self,
        map::{Shape, Types},
        program::{self, Code, Records},
    },
};

/// Bytes at an address that parsers of 64-bit ELF may read words from.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/datapath.o"));

/// The end of a verifier's log that is kept in an error.
const LOG_LINES: usize = 20;

/// What was loaded.
pub struct Loaded {
    /// The maps that are shared, by name.
    pub maps: BTreeMap<&'static str, OwnedFd>,
    /// The programs.
    pub programs: BTreeMap<Hook, OwnedFd>,
    /// Whether all shared maps were there already.
    pub maps_reused: bool,
}

/// Loads the object: shared maps are opened from, or made and pinned in, `maps_directory`.
pub fn load(maps_directory: &Path, track_flows: bool) -> Result<Loaded> {
    let broken = |error: &dyn std::fmt::Display| Error::Object(error.to_string());
    let mut object = Object::parse(&OBJECT.0).map_err(|e| broken(&e))?;
    let track_flows = u32::from(track_flows).to_ne_bytes();
    object
        .patch_map_data(HashMap::from([("TRACK_FLOWS", (&track_flows[..], true))]))
        .map_err(|e: ParseError| broken(&e))?;
    let btf = load_btf(&mut object)?;

    let (maps, maps_reused) = make_maps(&object, &btf, maps_directory)?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let definitions = object.maps.clone();
    object
        .relocate_maps(
            definitions.iter().filter_map(|(name, definition)| {
                maps.get(name.as_str())
                    .map(|fd| (name.as_str(), fd.as_raw_fd(), definition))
            }),
            &text,
        )
        .map_err(|e| broken(&e))?;
    object.relocate_calls(&text).map_err(|e| broken(&e))?;

    let programs = Hook::ALL
        .iter()
        .map(|hook| Ok((*hook, load_program(&object, &btf, *hook)?)))
        .collect::<Result<_>>()?;
    // The programs hold on to those maps that are theirs alone.
    let mut maps = maps;
    let shared = map::ALL
        .iter()
        .map(|name| {
            let fd = maps
                .remove(*name)
                .ok_or_else(|| Error::Object(format!("no map {name}")))?;
            Ok((*name, fd))
        })
        .collect::<Result<_>>()?;
    Ok(Loaded {
        maps: shared,
        programs,
        maps_reused,
    })
}

/// Every kernel that Tombolo runs on knows all kinds of type information in the object.
fn load_btf(object: &mut Object) -> Result<OwnedFd> {
    let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let btf = object
        .fixup_and_sanitize_btf(&all)
        .map_err(|e| Error::Object(e.to_string()))?
        .ok_or_else(|| Error::Object("no type information".to_owned()))?;
    bpf::load_btf(&btf.to_bytes()).map_err(|source| Error::MapCreate {
        map: "(type information)".to_owned(),
        source,
    })
}

fn make_maps(object: &Object, btf: &OwnedFd, directory: &Path) -> Result<(BTreeMap<String, OwnedFd>, bool)> {
    let mut maps = BTreeMap::new();
    let mut reused = true;
    for (name, definition) in &object.maps {
        let shape = Shape {
            kind: definition.map_type(),
            key_size: definition.key_size(),
            value_size: definition.value_size(),
            max_entries: definition.max_entries(),
            flags: definition.map_flags(),
        };
        let shared = map::ALL.contains(&name.as_str());
        let path = directory.join(name);
        if shared && path.exists() {
            maps.insert(name.clone(), reuse(&path, shape)?);
            continue;
        }
        let types = match definition {
            aya_obj::Map::Btf(map) => Some(Types {
                btf: btf.as_fd(),
                key: map.def.btf_key_type_id,
                value: map.def.btf_value_type_id,
            }),
            aya_obj::Map::Legacy(_) => None,
        };
        let refused = |source| Error::MapCreate {
            map: name.clone(),
            source,
        };
        let fd = bpf::map::create(name.trim_start_matches('.'), shape, types).map_err(refused)?;
        if shared {
            reused = false;
            bpf::pin(fd.as_fd(), &path).map_err(|source| Error::Pin {
                what: "pin",
                path,
                source,
            })?;
        } else if types.is_none() {
            bpf::map::fill_and_freeze(&fd, definition.data()).map_err(refused)?;
        }
        maps.insert(name.clone(), fd);
    }
    Ok((maps, reused))
}

/// Opens a pinned map, if it is of this shape.
pub fn reuse(path: &Path, wanted: Shape) -> Result<OwnedFd> {
    let refused = |source| Error::Pin {
        what: "open",
        path: path.to_owned(),
        source,
    };
    let fd = bpf::open(path, false).map_err(refused)?;
    let found = bpf::map::shape(fd.as_fd()).map_err(refused)?;
    if found == wanted {
        return Ok(fd);
    }
    Err(Error::MapMismatch {
        path: path.to_owned(),
        found: found.to_string(),
        wanted: wanted.to_string(),
    })
}

fn load_program(object: &Object, btf: &OwnedFd, hook: Hook) -> Result<OwnedFd> {
    let missing = || Error::Object(format!("no program {}", hook.word()));
    let definition = object.programs.get(hook.word()).ok_or_else(missing)?;
    let function = object
        .functions
        .get(&definition.function_key())
        .ok_or_else(missing)?;
    let (functions, lines) = (
        function.func_info.func_info_bytes(),
        function.line_info.line_info_bytes(),
    );
    let code = Code {
        name: hook.word(),
        instructions: &function.instructions,
        license: &definition.license,
        types: Some((
            btf.as_fd(),
            Records {
                bytes: &functions,
                size: function.func_info_rec_size,
                count: function.func_info.len(),
            },
            Records {
                bytes: &lines,
                size: function.line_info_rec_size,
                count: function.line_info.len(),
            },
        )),
    };
    program::load(&code).map_err(|(source, log)| {
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        Error::ProgramLoad {
            program: hook.word(),
            source,
            log,
        }
    })
}
