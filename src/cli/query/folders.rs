//! `--queries`: folders with queries of one's own.

use crate::error::Result;
use crate::sql::named::Catalogue;
use std::path::PathBuf;

/// Where named queries are found beside the shipped ones.
#[derive(Debug, clap::Args)]
pub struct Folders {
    /// Folder with queries of your own, *.sql; may be given more than once
    ///
    /// A file opens with comment lines as the shipped ones of `queries/` do: `-- question: ...`, `-- columns: ...`, any number
    /// of `-- parameter: name type [= default] description` and perhaps `-- empty: ...`, what an answer without rows means
    /// where nothing could be compared. Its name is the query's, and a name that there is already is refused.
    #[arg(long = "queries", value_name = "DIR")]
    folders: Vec<PathBuf>,
}

impl Folders {
    /// The shipped queries and those of the folders.
    pub fn catalogue(&self) -> Result<Catalogue> {
        Catalogue::with(&self.folders)
    }
}
