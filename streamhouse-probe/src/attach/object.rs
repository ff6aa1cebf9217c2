//! The kernel program's object file → a loaded program and its maps.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use aya::maps::{Map, MapError};
use aya::sys::SyscallError;
use aya::{Ebpf, EbpfError};
use aya_log::EbpfLogger;
use aya_obj::Object;
use streamhouse_abi::map::PROGRAM;

use super::error::{missing_capabilities, tail};
use super::maps::Maps;
use super::said::Named;
use super::sys::{self, ProgramText, Records};
use super::{Kernel, LoadError, Program};

/// Creates the maps through aya and loads the program ourselves: aya cannot load one for uprobe_multi.
pub(super) fn load(bytes: &[u8]) -> Result<Kernel, LoadError> {
    let mut object = Object::parse(bytes).map_err(|error| LoadError::Foreign(error.to_string()))?;
    let mut ebpf = Ebpf::load(bytes).map_err(maps_error)?;
    relocate(&mut object, &ebpf)?;
    let btf = load_types(&mut object)?;
    let program = load_program(&object, &btf)?;
    // A program without the logging map says nothing; that is no reason to refuse it.
    let log = EbpfLogger::init_with_logger(&mut ebpf, Named).ok();
    Ok(Kernel { program: Program { fd: program }, maps: Maps::take(&mut ebpf, log)?, hit_cost: None })
}

fn maps_error(error: EbpfError) -> LoadError {
    let EbpfError::MapError(error) = error else { return LoadError::Foreign(error.to_string()) };
    let source = match &error {
        MapError::CreateError { io_error, .. } => Some(io_error),
        MapError::SyscallError(SyscallError { io_error, .. }) => Some(io_error),
        _ => None,
    };
    match source {
        Some(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            LoadError::Denied(missing_capabilities())
        }
        Some(source) => LoadError::Maps(format!("{error}: {source}")),
        None => LoadError::Maps(error.to_string()),
    }
}

/// Puts the maps' descriptors and the subprograms into the program's text.
fn relocate(object: &mut Object, ebpf: &Ebpf) -> Result<(), LoadError> {
    let foreign = |error: &dyn std::error::Error| LoadError::Foreign(error.to_string());
    let descriptors: HashMap<&str, RawFd> =
        ebpf.maps().filter_map(|(name, map)| Some((name, descriptor(map)?))).collect();
    let maps = object.maps.clone();
    let located =
        maps.iter().filter_map(|(name, map)| Some((name.as_str(), *descriptors.get(name.as_str())?, map)));
    let text: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
    object.relocate_maps(located, &text).map_err(|error| foreign(&error))?;
    object.relocate_calls(&text).map_err(|error| foreign(&error))?;
    object.sanitize_functions(aya::features());
    Ok(())
}

/// The descriptor of a map of the kinds that the program has.
fn descriptor(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data) | Map::PerCpuArray(data) | Map::HashMap(data) | Map::RingBuf(data) => {
            Some(data.fd().as_fd().as_raw_fd())
        }
        _ => None,
    }
}

/// Loads the object's type information, which `bpf_loop` needs to know its callback by.
fn load_types(object: &mut Object) -> Result<OwnedFd, LoadError> {
    let unsupported = || LoadError::Types(io::ErrorKind::Unsupported.into());
    let features = aya::features().btf().ok_or_else(unsupported)?;
    let btf = object
        .fixup_and_sanitize_btf(features)
        .map_err(|error| LoadError::Foreign(error.to_string()))?
        .ok_or_else(|| LoadError::Foreign("it has no type information".to_owned()))?;
    sys::load_btf(&btf.to_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => LoadError::Denied(missing_capabilities()),
        _ => LoadError::Types(error),
    })
}

fn load_program(object: &Object, btf: &OwnedFd) -> Result<OwnedFd, LoadError> {
    let function = object
        .programs
        .get(PROGRAM)
        .and_then(|program| object.functions.get(&program.function_key()))
        .ok_or_else(|| LoadError::Foreign(format!("it has no program {PROGRAM}")))?;
    let functions = function.func_info.func_info_bytes();
    let lines = function.line_info.line_info_bytes();
    let text = ProgramText {
        name: PROGRAM,
        license: &object.license,
        instructions: &function.instructions,
        btf: btf.as_fd(),
        functions: Records { bytes: &functions, count: function.func_info.len() },
        lines: Records { bytes: &lines, count: function.line_info.len() },
    };
    sys::load_program(&text).map_err(|refused| match refused.source.kind() {
        io::ErrorKind::PermissionDenied if refused.log.is_empty() => {
            LoadError::Denied(missing_capabilities())
        }
        _ => LoadError::Verifier { source: refused.source, log: tail(&refused.log) },
    })
}
