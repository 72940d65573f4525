//! The `actrace` binary as its users run it.

use crate::support::{fixture, model, package};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// `actrace VERB` with nothing on its standard input.
pub fn actrace(verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace"));
    command.arg(verb).stdin(Stdio::null());
    command
}

/// `actrace record` of one layer of a small model into `out`, `generate` tokens.
pub fn record(out: &Path, generate: u32) -> Command {
    let mut command = actrace("record");
    command.arg("--model").arg(model("tiny-qwen2.safetensors")).args(["--tokens", "609,1827,409", "--threads", "1"]);
    command.args(["--layers", "0", "--generate", &generate.to_string()]).arg("--out").arg(out);
    command
}

/// The command where no file may grow beyond `blocks` of 512 bytes; the signal that comes with it is ignored, so that
/// the write fails.
pub fn limited(blocks: usize, command: &Command) -> Command {
    in_shell(&format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), command)
}

/// The command as `"$@"` of a shell's script.
fn in_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    shell
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Finished {
    Finished::of(command.output().unwrap())
}

/// Runs a command with `--json`: its exit status and what it reports.
pub fn json(command: &mut Command) -> (i32, serde_json::Value) {
    let finished = run(command.arg("--json"));
    (finished.status, finished.report())
}

/// What a finished command left behind.
pub struct Finished {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let status = output.status.code().unwrap_or_else(|| panic!("no exit status: {:?}", output.status));
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

    /// What it reports as JSON, however it ended.
    pub fn report(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no JSON: {}", self.stderr))
    }

    /// What a successful command reports as JSON.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self.report()
    }
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

    fn command(&self, args: &[&str]) -> Command {
        let out = self.path("out").to_str().unwrap().to_owned();
        let mut command = actrace("record");
        command.args(args.iter().map(|arg| arg.replace("{out}", &out)));
        command
    }

    /// `actrace record ARGS`.
    pub fn record(&self, args: &[&str]) -> Finished {
        run(&mut self.command(args))
    }

    /// `actrace record ARGS` behind a redirection of the shell.
    pub fn record_into(&self, redirection: &str, args: &[&str]) -> Finished {
        run(&mut in_shell(&format!("exec \"$@\" {redirection}"), &self.command(args)))
    }

    /// `actrace record ARGS` under [`limited`].
    pub fn record_limited(&self, blocks: usize, args: &[&str]) -> Finished {
        run(&mut limited(blocks, &self.command(args)))
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
