//! Writes valid inputs for every target into `DIRECTORY/TARGET/`, for the fuzzer to begin with.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let directory = env::args_os().nth(1).map(PathBuf::from).ok_or(io::ErrorKind::InvalidInput)?;
    for (target, _) in streamhouse_fuzz::TARGETS {
        let directory = directory.join(target);
        fs::create_dir_all(&directory)?;
        for (name, bytes) in streamhouse_fuzz::seeds::of(target) {
            fs::write(directory.join(name), bytes)?;
        }
    }
    Ok(())
}
