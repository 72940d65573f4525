//! The `actrace` binary as its users run it.

use crate::support::{fixture, package};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a finished command left behind.
pub struct Finished {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let status = output.status.code().expect("no signal ended it");
        Finished { status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The only line that begins with `error: `; what stands before it are notes, behind it the usage of a
    /// command line that does not parse.
    pub fn one_error(&self) -> String {
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one error line in:\n{}", self.stderr);
        for line in self.stderr.lines().take_while(|line| *line != errors[0]) {
            assert!(line.starts_with("expected: ") || line.starts_with("device: "), "a stray line: {line}");
        }
        errors[0].to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.status, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// Runs `actrace` with nothing on its standard input.
pub fn actrace(args: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace"));
    Finished::of(command.args(args).stdin(Stdio::null()).output().unwrap())
}

/// A folder of its own for one test; `{out}` in arguments is the file `out` in it.
pub struct Ground(tempfile::TempDir);

impl Ground {
    pub fn new() -> Self {
        Ground(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn filled<'a>(&self, args: &[&'a str]) -> Vec<String> {
        let out = self.path("out").to_str().unwrap().to_owned();
        args.iter().map(|arg: &&'a str| arg.replace("{out}", &out)).collect()
    }

    /// `actrace record ARGS`.
    pub fn record(&self, args: &[&str]) -> Finished {
        let args = self.filled(args);
        let mut all = vec!["record"];
        all.extend(args.iter().map(String::as_str));
        actrace(&all)
    }

    /// `actrace record ARGS` behind a redirection of the shell.
    pub fn record_into(&self, redirection: &str, args: &[&str]) -> Finished {
        self.shell(&format!("exec \"$0\" record \"$@\" {redirection}"), args)
    }

    /// `actrace record ARGS` where no file may grow beyond `blocks` of 512 bytes.
    pub fn record_limited(&self, blocks: usize, args: &[&str]) -> Finished {
        self.shell(&format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" record \"$@\""), args)
    }

    fn shell(&self, script: &str, args: &[&str]) -> Finished {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_actrace")]).args(self.filled(args)).stdin(Stdio::null());
        Finished::of(shell.output().unwrap())
    }

    /// Runs a command that must be refused with status 2 and one line, and must leave the folder as it is.
    pub fn refused(&self, what: &str, args: &[&str]) -> String {
        let before = self.contents();
        let finished = self.record(args);
        assert_eq!(finished.status, 2, "{what}: {}{}", finished.stdout, finished.stderr);
        assert_eq!(finished.stdout, "", "{what}");
        assert!(before == self.contents(), "{what}: the folder changed");
        self.redacted(&format!("{}: {}", what.escape_default(), finished.one_error()))
    }

    /// Every case added to a run of the small llama model that would otherwise record; one line each.
    pub fn refusals(&self, common: &[&str], cases: &[&[&str]]) -> String {
        let plain = fixture("llama/plain");
        let mut lines = Vec::new();
        for case in cases {
            let mut args = vec!["--model", plain.to_str().unwrap()];
            args.extend(common.iter().chain(*case));
            if !case.contains(&"--out") {
                args.extend(["--out", "{out}"]);
            }
            lines.push(self.refused(&case.join(" "), &args));
        }
        lines.join("\n")
    }

    /// Without the paths of this machine.
    pub fn redacted(&self, text: &str) -> String {
        let replaced = text.replace(self.0.path().to_str().unwrap(), "[dir]");
        replaced.replace(package().to_str().unwrap(), "[package]")
    }

    fn contents(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        read_tree(self.0.path(), &mut found);
        found
    }
}

fn read_tree(folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_tree(&path, found);
            found.insert(path, None);
        } else {
            found.insert(path.clone(), Some(std::fs::read(&path).unwrap()));
        }
    }
}
