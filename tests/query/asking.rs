//! What the modules share: traces to ask, and a way to ask.

use crate::synthetic::{Run, write};
use actrace::open::TraceSet;
use actrace::sql::{DEFAULT_MEMORY, Session, Value, named::Catalogue, output::Format};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Layers and points of the small runs.
pub const SITES: [(i32, &str); 4] = [(-1, "embed"), (0, "ffn_act"), (1, "ffn_act"), (-1, "logits")];

/// Values that differ at every place: width 4, and more at the logits.
pub fn values(layer: i32, point: &str, position: u32) -> Vec<f32> {
    let width = if point == "logits" { 6 } else { 4 };
    (0..width).map(|i| (layer * 10) as f32 + position as f32 - 0.25 * i as f32).collect()
}

/// A run named `label` over `tokens`.
pub fn run<'a>(label: &'a str, tokens: &[u32], values: &'a dyn Fn(i32, &str, u32) -> Vec<f32>) -> Run<'a> {
    Run { label, tokens: tokens.to_vec(), sites: SITES.to_vec(), tensors: true, values }
}

/// A sealed file with a run `a`.
pub fn one_run(folder: &Path) -> PathBuf {
    let path = folder.join("a.actrace");
    write(&path, &[run("a", &[5, 6, 7], &values)], true);
    path
}

/// The answer to `sql` over `paths` as `format`, and the session that gave it.
pub fn ask_as(sql: &str, paths: &[PathBuf], format: Format) -> (actrace::Result<String>, Session) {
    asked(sql, &[], paths, format)
}

fn asked(
    sql: &str,
    values: &[(String, Value)],
    paths: &[PathBuf],
    format: Format,
) -> (actrace::Result<String>, Session) {
    let session = Session::new(TraceSet::open(paths).unwrap(), DEFAULT_MEMORY).unwrap();
    let out = Shared::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let written = runtime.block_on(async {
        let answer = session.query(sql, values).await?;
        actrace::sql::output::write(answer, format, Box::new(out.clone())).await
    });
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    (written.map(|_| text), session)
}

/// The answer as CSV.
pub fn ask(sql: &str, paths: &[PathBuf]) -> String {
    ask_as(sql, paths, Format::Csv).0.unwrap()
}

/// What `sql` is refused with.
pub fn refusal(sql: &str, paths: &[PathBuf]) -> actrace::Error {
    ask_as(sql, paths, Format::Csv).0.unwrap_err()
}

/// The answer to a named query over `paths` as CSV.
pub fn answer(name: &str, paths: &[PathBuf], parameters: &[(&str, &str)]) -> String {
    let query = Catalogue::shipped().find(name).unwrap();
    let given: Vec<_> = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let values = query.values(&given, &TraceSet::open(paths).unwrap()).unwrap();
    asked(&query.sql, &values, paths, Format::Csv).0.unwrap()
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
