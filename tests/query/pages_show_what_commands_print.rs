//! Pages of `docs/` with commands: each is run as it stands there, in the order of the page, and prints what the page says.

use crate::support;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

/// Numbers agree when compared runs do: 1e-5 for each side, since processors add in unlike orders, and half a unit of the
/// six digits that are shown.
const TOLERANCE: f64 = 2.0 * 1e-5 + 5e-6;

struct Shown {
    command: String,
    /// What it prints; empty where the page leaves that out.
    lines: Vec<String>,
}

/// Commands of the blocks of a page: a line that begins with `$ `, and those after a line that ends with a backslash.
fn commands(page: &str) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    let (mut in_block, mut unfinished) = (false, false);
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| in_block) {
            shown.push(Shown { command: command.to_owned(), lines: Vec::new() });
            unfinished = line.ends_with('\\');
        } else if in_block && unfinished {
            let command = &mut shown.last_mut().unwrap().command;
            command.push('\n');
            command.push_str(line);
            unfinished = line.ends_with('\\');
        } else if in_block {
            shown.last_mut().unwrap().lines.push(line.to_owned());
        }
    }
    shown
}

/// What a command prints on stdout and stderr together, and whether its status is 0.
fn run(command: &str, folder: &Path) -> (String, bool) {
    let programs = Path::new(env!("CARGO_BIN_EXE_actrace-query")).parent().unwrap();
    let mut path = OsString::from(programs);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let script = format!("exec 2>&1\n{command}");
    let output = Command::new("sh").args(["-c", &script]).current_dir(folder).env("PATH", path).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

/// Whether the words are the same and the numbers near.
fn alike(shown: &str, printed: &str) -> bool {
    let (shown, printed): (Vec<&str>, Vec<&str>) =
        (shown.split_whitespace().collect(), printed.split_whitespace().collect());
    let near = |(shown, printed): (&&str, &&str)| match (shown.parse::<f64>(), printed.parse::<f64>()) {
        // A column may be called nan.
        (Ok(one), Ok(other)) => shown == printed || (one - other).abs() <= TOLERANCE * one.abs(),
        _ => shown == printed,
    };
    shown.len() == printed.len() && shown.iter().zip(&printed).all(near)
}

fn check(page: &str, count: usize) {
    let folder = tempdir().unwrap();
    std::os::unix::fs::symlink(support::package().join("models"), folder.path().join("models")).unwrap();
    let text = std::fs::read_to_string(support::package().join(page)).unwrap();
    let shown = commands(&text);
    assert_eq!(shown.len(), count, "commands of {page}");
    for Shown { command, lines } in shown {
        let (printed, fine) = run(&command, folder.path());
        assert!(fine, "{command}\n{printed}");
        if lines.is_empty() {
            continue;
        }
        let printed: Vec<&str> = printed.lines().collect();
        let same = printed.len() == lines.len() && lines.iter().zip(&printed).all(|(one, other)| alike(one, other));
        assert!(same, "{page}: {command}\nshows\n{}\nand prints\n{}", lines.join("\n"), printed.join("\n"));
    }
}

#[test]
fn contracts_in_the_readme() {
    check("README.md", 2);
}

/// The story of ship-007: populations and capture points that are not the same, and the ratios that come of it.
#[test]
fn two_ratios_that_were_no_fault() {
    check("docs/two-ratios.md", 14);
}

/// A command for each question that users ask of a trace.
#[test]
fn every_question_has_its_command() {
    check("docs/questions.md", 29);
}
