//! A program without hooks that loads a library with hooks late: `hooked-host LIBRARY` loads it at the first line it
//! reads, and has it fire as often as each following line says. Each line is answered with `done`.

#![expect(clippy::print_stdout, reason = "it answers on its standard output")]

use std::env;

use anyhow::{Context, Result};
use libloading::{Library, Symbol};

fn main() -> Result<()> {
    let path = env::args_os().nth(1).context("which library?")?;
    let mut lines = std::io::stdin().lines();
    lines.next().context("not told to load it")??;
    // SAFETY: the library is this package's own, and what runs when it is loaded is what the hooks need.
    let library = unsafe { Library::new(path) }?;
    println!("done");
    // SAFETY: this is its signature.
    let fire: Symbol<'_, extern "C" fn(u64)> = unsafe { library.get(b"streamhouse_hooked_fire") }?;
    for line in lines {
        fire(line?.parse()?);
        println!("done");
    }
    Ok(())
}
