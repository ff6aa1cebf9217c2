//! x
use streamhouse_probe::attach::*;
fn main() {
    let o = object(None).unwrap();
    match Kernel::load(&o) {
        Ok(_) => println!("loaded"),
        Err(e) => println!("{e}"),
    }
    println!("{:#?}", probe_features(&o));
}
