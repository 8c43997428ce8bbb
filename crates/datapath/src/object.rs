//! The object that the kernel side was built to: from its bytes to maps and programs in the kernel.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
};

use aya_obj::{Map, Object, btf::BtfFeatures};
use tombolo_abi::{Hook, Timeouts, map};

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

#[cfg(not(feature = "abi-next"))]
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/datapath.o"));
#[cfg(feature = "abi-next")]
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/datapath-next.o"));

/// The end of a verifier's log that is kept in an error.
const LOG_LINES: usize = 20;

/// The shared maps, by name.
pub type Maps = BTreeMap<&'static str, OwnedFd>;

/// The programs.
pub type Programs = BTreeMap<Hook, OwnedFd>;

/// The object that is part of this build.
pub struct Embedded {
    object: Object,
    btf: OwnedFd,
}

/// What programs are told before they are loaded, and cannot be told later.
#[derive(Clone, Copy, Debug, Default)]
pub struct Constants<'a> {
    /// Whether flows are tracked.
    pub track_flows: bool,
    /// When flows end.
    pub timeouts: Timeouts,
    /// The flows of another ABI version that go on meanwhile.
    pub neighbour_flows: Option<&'a OwnedFd>,
}

impl Embedded {
    /// Reads it.
    pub fn parse() -> Result<Self> {
        let mut object = Object::parse(&OBJECT.0).map_err(broken)?;
        let btf = load_btf(&mut object)?;
        Ok(Self { object, btf })
    }

    /// What a map is to be.
    pub fn shape(&self, name: &'static str) -> Result<Shape> {
        self.definition(name).map(shape)
    }

    /// Makes a map, which is empty.
    pub fn create(&self, name: &'static str) -> Result<OwnedFd> {
        self.make(name, self.definition(name)?)
    }

    /// Loads the programs with these maps, and with maps of their own where they share none.
    pub fn programs(mut self, shared: &Maps, constants: Constants<'_>) -> Result<Programs> {
        // The programs hold on to those maps that are theirs alone.
        let _own = self.link(shared, constants)?;
        Hook::ALL
            .iter()
            .map(|hook| Ok((*hook, load_program(&self.object, &self.btf, hook.word())?)))
            .collect()
    }

    /// Loads the program that starts the timers of flows which were not begun by programs. It is no hook's.
    pub fn arming(mut self, shared: &Maps, constants: Constants<'_>) -> Result<OwnedFd> {
        let _own = self.link(shared, constants)?;
        load_program(&self.object, &self.btf, "arm_flows")
    }

    /// Resolves all references of programs; gives the maps that are theirs alone.
    fn link(&mut self, shared: &Maps, constants: Constants<'_>) -> Result<Vec<OwnedFd>> {
        let word = |on: bool| u32::from(on).to_ne_bytes();
        let track_flows = word(constants.track_flows);
        let read_through = word(constants.neighbour_flows.is_some());
        let timeouts = bpf::map::bytes(&constants.timeouts);
        let patches: [(&str, &[u8]); 3] = [
            ("TRACK_FLOWS", &track_flows),
            ("READ_THROUGH", &read_through),
            ("TIMEOUTS", timeouts),
        ];
        self.object
            .patch_map_data(HashMap::from(patches.map(|(name, bytes)| (name, (bytes, true)))))
            .map_err(broken)?;

        let definitions = self.object.maps.clone();
        let mut own = Vec::new();
        let mut maps: Vec<(&str, RawFd, &Map)> = Vec::new();
        for (name, definition) in &definitions {
            let found = match name.as_str() {
                // Where it is not read, any map will do: what reads it is removed.
                map::NEIGHBOUR_FLOWS => constants.neighbour_flows.or(shared.get(map::FLOWS)),
                name => shared.get(name),
            };
            let fd = match found {
                Some(fd) => fd.as_raw_fd(),
                None => {
                    let made = self.make(name, definition)?;
                    let fd = made.as_raw_fd();
                    own.push(made);
                    fd
                }
            };
            maps.push((name, fd, definition));
        }
        let text: HashSet<usize> = self
            .object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        self.object
            .relocate_maps(maps.into_iter(), &text)
            .map_err(broken)?;
        self.object.relocate_calls(&text).map_err(broken)?;
        Ok(own)
    }

    fn definition(&self, name: &'static str) -> Result<&Map> {
        let missing = || Error::Object(format!("no map {name}"));
        self.object.maps.get(name).ok_or_else(missing)
    }

    /// Sections of constants are filled.
    fn make(&self, name: &str, definition: &Map) -> Result<OwnedFd> {
        let refused = |source| Error::MapCreate {
            map: name.to_owned(),
            source,
        };
        let types = match definition {
            Map::Btf(map) => Some(Types {
                btf: self.btf.as_fd(),
                key: map.def.btf_key_type_id,
                value: map.def.btf_value_type_id,
            }),
            Map::Legacy(_) => None,
        };
        let fd = bpf::map::create(name.trim_start_matches('.'), shape(definition), types).map_err(refused)?;
        if types.is_none() {
            bpf::map::fill_and_freeze(&fd, definition.data()).map_err(refused)?;
        }
        Ok(fd)
    }
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Object(error.to_string())
}

fn shape(definition: &Map) -> Shape {
    Shape {
        kind: definition.map_type(),
        key_size: definition.key_size(),
        value_size: definition.value_size(),
        max_entries: definition.max_entries(),
        flags: definition.map_flags(),
    }
}

/// Every kernel that Tombolo runs on knows all kinds of type information in the object.
fn load_btf(object: &mut Object) -> Result<OwnedFd> {
    let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let btf = object
        .fixup_and_sanitize_btf(&all)
        .map_err(broken)?
        .ok_or_else(|| Error::Object("no type information".to_owned()))?;
    bpf::load_btf(&btf.to_bytes()).map_err(|source| Error::MapCreate {
        map: "(type information)".to_owned(),
        source,
    })
}

fn load_program(object: &Object, btf: &OwnedFd, name: &'static str) -> Result<OwnedFd> {
    let missing = || Error::Object(format!("no program {}", name));
    let definition = object.programs.get(name).ok_or_else(missing)?;
    let function = object
        .functions
        .get(&definition.function_key())
        .ok_or_else(missing)?;
    let (functions, lines) = (
        function.func_info.func_info_bytes(),
        function.line_info.line_info_bytes(),
    );
    let code = Code {
        name,
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
            program: name,
            source,
            log,
        }
    })
}
