use super::super::*;
#[test]
fn t() {
    println!("{}", serde_json::to_string_pretty(&schema()).unwrap());
    let text = std::fs::read_to_string("/tmp/t.toml").unwrap();
    match parse("t.toml", &text, None) {
        Ok(c) => println!("{c:#?}"),
        Err(m) => println!("{}", m.render(false)),
    }
}
