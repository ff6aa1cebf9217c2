//! What README shows is the example that compiles.

const README: &str = include_str!("../../../README.md");
const EXAMPLE: &str = include_str!("../examples/orders.rs");

#[test]
fn readme_quotes_the_example() {
    let (_, program) = EXAMPLE.split_once("\n\nuse ").expect("the example's imports follow its attributes");
    let quoted = format!("```rust\nuse {program}```\n");
    assert!(
        README.contains(&quoted),
        "quote examples/orders.rs, from its first `use`, in README.md:\n{quoted}"
    );
}
