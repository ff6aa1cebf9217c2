//! `hooked N` fires N times and ends. `hooked churn` fires on and on, see [`churn`]. `hooked` alone reads lines: a number fires as often, `exec PATH` becomes another
//! program in the same process. Each is answered with `done`, the exec by nobody.

#![expect(clippy::print_stdout, reason = "it answers on its standard output")]

mod churn;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use streamhouse_hooked::streamhouse_hooked_fire as fire;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some(("churn", images)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return churn::run(images);
    }
    if let Some(times) = arguments.first() {
        fire(times.parse().context("how often?")?);
        return Ok(());
    }
    for line in std::io::stdin().lines() {
        let line = line?;
        if let Some(path) = line.strip_prefix("exec ") {
            return Err(Command::new(path).exec()).with_context(|| format!("executing {path}"));
        }
        fire(line.parse().with_context(|| format!("{line:?} is no number"))?);
        println!("done");
    }
    Ok(())
}
