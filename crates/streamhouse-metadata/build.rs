//! The migrations are embedded by a macro that cannot see a new file.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
