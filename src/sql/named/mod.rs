//! Named queries: the files of `queries/` and of folders that a user names, each with its question, parameters and columns
//! on top.

mod header;
mod parameter;
mod query;

pub use parameter::{Parameter, ParameterKind};
pub use query::Query;

use super::error::unknown_name;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The shipped files, built in so that the binary stands alone. A test holds this list against the folder.
const SHIPPED: &[(&str, &str)] = &[
    ("bit-equality", include_str!("../../../queries/bit-equality.sql")),
    ("channel", include_str!("../../../queries/channel.sql")),
    ("coverage", include_str!("../../../queries/coverage.sql")),
    ("drift", include_str!("../../../queries/drift.sql")),
    ("experts", include_str!("../../../queries/experts.sql")),
    ("first-exceeding", include_str!("../../../queries/first-exceeding.sql")),
    ("growth", include_str!("../../../queries/growth.sql")),
    ("logits", include_str!("../../../queries/logits.sql")),
    ("nonfinite", include_str!("../../../queries/nonfinite.sql")),
    ("odd-run", include_str!("../../../queries/odd-run.sql")),
    ("other-experts", include_str!("../../../queries/other-experts.sql")),
    ("outlier-channels", include_str!("../../../queries/outlier-channels.sql")),
    ("provenance", include_str!("../../../queries/provenance.sql")),
    ("ratio-by-layer", include_str!("../../../queries/ratio-by-layer.sql")),
    ("runs", include_str!("../../../queries/runs.sql")),
    ("spikes", include_str!("../../../queries/spikes.sql")),
    ("stale-buffers", include_str!("../../../queries/stale-buffers.sql")),
    ("statistics", include_str!("../../../queries/statistics.sql")),
    ("top-differences", include_str!("../../../queries/top-differences.sql")),
    ("weights", include_str!("../../../queries/weights.sql")),
    ("worst-positions", include_str!("../../../queries/worst-positions.sql")),
];

/// Named queries, found by name.
#[derive(Debug)]
pub struct Catalogue {
    files: BTreeMap<String, File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    text: Cow<'static, str>,
    shipped: bool,
}

impl Catalogue {
    /// The shipped queries.
    pub fn shipped() -> Self {
        let file = |(name, text): &(&str, &'static str)| {
            let path = Path::new("queries").join(name).with_extension("sql");
            ((*name).to_owned(), File { path, text: Cow::Borrowed(*text), shipped: true })
        };
        Catalogue { files: SHIPPED.iter().map(file).collect() }
    }

    /// The shipped queries and those of `folders`: every file there whose name ends with `.sql`.
    ///
    /// # Errors
    ///
    /// `Environment` where a folder or a file cannot be read; `Usage` for a name that there is already: one name means one
    /// query.
    pub fn with(folders: &[PathBuf]) -> Result<Self> {
        let mut catalogue = Self::shipped();
        for folder in folders {
            for path in query_files(folder)? {
                catalogue.add(path)?;
            }
        }
        Ok(catalogue)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::usage("the name of a query is UTF-8").in_file(&path))?.to_owned();
        if let Some(other) = self.files.get(&name) {
            let whose = if other.shipped { "a shipped query".to_owned() } else { other.path.display().to_string() };
            return Err(Error::usage(format!("`{name}` is the name of {whose} already: give the file another name"))
                .in_file(&path));
        }
        let bytes = std::fs::read(&path).map_err(|cause| Error::io("read", &path, cause))?;
        let text = String::from_utf8(bytes).map_err(|_| Error::usage("a query is UTF-8 text").in_file(&path))?;
        self.files.insert(name, File { path, text: Cow::Owned(text), shipped: false });
        Ok(())
    }

    /// All queries, by name.
    ///
    /// # Errors
    ///
    /// `Usage` where a header breaks its form, with file and line.
    pub fn all(&self) -> Result<Vec<Query>> {
        self.files.iter().map(|(name, file)| file.parse(name)).collect()
    }

    /// The query `name`.
    ///
    /// # Errors
    ///
    /// `Usage` for an unknown name, with the nearest known one, and where its header breaks its form.
    pub fn find(&self, name: &str) -> Result<Query> {
        match self.files.get(name) {
            Some(file) => file.parse(name),
            None => Err(Error::usage(unknown_name("query", name, self.files.keys().map(String::as_str)))),
        }
    }
}

impl File {
    fn parse(&self, name: &str) -> Result<Query> {
        Query::parse(name, &self.text).map_err(|error| error.in_file(&self.path))
    }
}

/// The `.sql` files of a folder, by name.
fn query_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |cause| Error::io("read the folder of queries", folder, cause);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "sql") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn the_list_holds_every_file_of_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
        let files: Vec<String> = query_files(&folder)
            .unwrap()
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(files, SHIPPED.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn every_header_can_be_read_and_every_parameter_is_used() {
        for query in Catalogue::shipped().all().unwrap() {
            for parameter in &query.parameters {
                assert!(query.sql.contains(&format!("${}", parameter.name)), "{}: {}", query.name, parameter.name);
            }
        }
    }

    #[test]
    fn a_slip_in_a_name_gets_the_near_one() {
        let error = Catalogue::shipped().find("ratio-by-layers").unwrap_err().to_string();
        assert!(error.contains("did you mean `ratio-by-layer`?"), "{error}");
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const OWN: &str = "-- question: How many runs?\n-- columns: runs\nSELECT count(*) AS runs FROM runs\n";

    #[test]
    fn a_folder_adds_its_queries_and_nothing_else_that_lies_there() {
        let folder = folder(&[("how-many.sql", OWN), ("notes.md", "no query")]);
        let catalogue = Catalogue::with(&[folder.path().to_owned()]).unwrap();
        assert_eq!(catalogue.all().unwrap().len(), SHIPPED.len() + 1);
        assert_eq!(catalogue.find("how-many").unwrap().question, "How many runs?");
    }

    #[test]
    fn one_name_means_one_query() {
        let refusal = |folders: &[PathBuf]| {
            let error = Catalogue::with(folders).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            error.to_string()
        };
        let shadow = folder(&[("runs.sql", OWN)]);
        let error = refusal(&[shadow.path().to_owned()]);
        assert!(error.ends_with("runs.sql: `runs` is the name of a shipped query already: give the file another name"));
        let (one, other) = (folder(&[("mine.sql", OWN)]), folder(&[("mine.sql", OWN)]));
        let error = refusal(&[one.path().to_owned(), other.path().to_owned()]);
        assert!(error.contains(one.path().to_str().unwrap()) && error.contains(other.path().to_str().unwrap()));
    }

    #[test]
    fn a_broken_header_is_named_with_its_file_and_line() {
        let folder = folder(&[("mine.sql", "-- question: What?\n-- paramter: run run = any\n")]);
        let catalogue = Catalogue::with(&[folder.path().to_owned()]).unwrap();
        assert!(catalogue.find("runs").is_ok(), "another query is none of its business");
        let error = catalogue.find("mine").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("mine.sql: line 2: "), "{error}");
        assert!(catalogue.all().is_err());
    }
}
