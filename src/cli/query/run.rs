//! `actrace-query run`: a named query.

use super::folders::Folders;
use super::output::{Output, Written};
use super::{Opening, follow};
use crate::error::{Error, ErrorKind, Result};

/// Answer a named query
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  actrace-query run ratio-by-layer runs.actrace -p statistic=rms")]
pub struct Run {
    /// Name of the query, from `actrace-query list`
    name: String,
    #[command(flatten)]
    opening: Opening,
    /// Value of a parameter
    #[arg(short = 'p', long = "parameter", value_name = "KEY=VALUE", value_parser = pair)]
    parameters: Vec<(String, String)>,
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    output: Output,
}

impl Run {
    /// Runs the command.
    pub fn answer(&self) -> Result<u8> {
        let query = self.folders.catalogue()?.find(&self.name)?;
        self.output.check(&self.opening.files)?;
        let written = follow::answer(&self.opening, &self.output, async |session| {
            let values = query.values(&self.parameters, session.set())?;
            session.query(&query.sql, &values).await
        })?;
        match &query.empty {
            Some(reason) if written == Written::Rows(0) => {
                Err(Error::new(ErrorKind::NotComparable, format!("not comparable: {reason}")))
            }
            _ => Ok(0),
        }
    }
}

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a parameter is KEY=VALUE".to_owned()),
    }
}
