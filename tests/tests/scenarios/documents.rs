//! What the documentation shows exists in the code.

use std::{fs, path::Path};

/// The lines of every Rust file below a directory.
fn source_lines(directory: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_lines(&path, lines);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            lines.extend(fs::read_to_string(&path).unwrap().lines().map(str::to_owned));
        }
    }
}

#[test]
fn the_example_log_lines_are_written_by_the_services() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut code = Vec::new();
    for service in ["registry-api/src", "content-app/src"] {
        source_lines(&root.join(service), &mut code);
    }
    let document = fs::read_to_string(root.join("docs/logging.md")).unwrap();
    let examples: Vec<_> =
        document.split("```").nth(1).unwrap().lines().filter(|line| !line.is_empty()).collect();
    assert!(examples.len() >= 3, "{examples:?}");
    for example in examples {
        let (level, text) = example.split_once(' ').unwrap();
        let words: Vec<_> = text.split_whitespace().collect();
        let first_field = words.iter().position(|word| word.contains('=')).unwrap();
        let message = format!("\"{}\"", words[..first_field].join(" "));
        let fields = words[first_field..].iter().filter_map(|word| Some(word.split_once('=')?.0));
        let macro_name = format!("tracing::{}!", level.to_lowercase());
        let parts: Vec<_> =
            fields.chain([message.as_str(), macro_name.as_str()]).map(str::to_owned).collect();
        assert!(
            code.iter().any(|line| parts.iter().all(|part| line.contains(part.as_str()))),
            "no log line has {parts:?}"
        );
    }
}
