//! Compiles the gRPC services without a protoc binary: each into a folder of its own, since they have codecs of their own.

use std::path::PathBuf;
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for (service, codec) in [("agent", "AgentCodec"), ("metadata", "MetadataCodec")] {
        let folder = out.join(service);
        fs::create_dir_all(&folder)?;
        let descriptors = protox::compile([format!("streamhouse/v1/{service}.proto")], ["proto"])?;
        tonic_prost_build::configure()
            .bytes(".")
            .codec_path(format!("crate::codec::{codec}"))
            .out_dir(folder)
            .compile_fds(descriptors)?;
    }
    Ok(())
}
