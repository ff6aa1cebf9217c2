//! `s3-server DIR SEED`: prints its address, then reads a command a line (see `streamhouse_tests::s3`) and ends with its
//! standard input, so that it never outlives whoever started it.
#![expect(clippy::print_stdout, reason = "the answers of a line protocol")]

use anyhow::{Context, Result, bail};
use std::path::Path;
use streamhouse_s3_server::Server;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(seed), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        bail!("usage: s3-server DIR SEED");
    };
    let server = Server::start(Path::new(&dir), seed.parse().context("SEED is not a number")?).await?;
    println!("{}", server.address());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.strip_prefix("faults ") {
            Some(faults) => server.faulty().set(faults.parse()?),
            None if line == "counts" => {}
            None => bail!("unknown command {line:?}"),
        }
        println!("{}", server.faulty().counts());
    }
    Ok(())
}
