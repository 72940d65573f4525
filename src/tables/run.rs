//! What every row of a run repeats: its names and its plan's sites.

use super::column;
use crate::error::{Error, Result};
use crate::open::{RunRef, RunView, StepFrames, TraceSet};
use crate::record::SiteV1;
use arrow::array::{ArrayRef, StringArray};
use std::collections::HashMap;
use std::sync::Arc;

/// A run with the columns that its rows share.
#[derive(Debug)]
pub struct RunColumns {
    run: RunRef,
    id: String,
    points: Arc<StringArray>,
    point_keys: Vec<i32>,
}

impl RunColumns {
    /// Every run of `set`.
    pub fn of(set: &TraceSet) -> Result<Vec<Arc<RunColumns>>> {
        set.runs().map(|run| Ok(Arc::new(RunColumns::new(run)?))).collect()
    }

    fn new(run: RunRef) -> Result<Self> {
        let mut names: Vec<&str> = Vec::new();
        let mut numbers: HashMap<&str, i32> = HashMap::new();
        let mut point_keys = Vec::new();
        for site in &run.view().plan.sites {
            let next = i32::try_from(names.len()).map_err(|_| Error::malformed("a plan has too many points"))?;
            point_keys.push(*numbers.entry(&site.point).or_insert_with(|| {
                names.push(&site.point);
                next
            }));
        }
        let points = Arc::new(StringArray::from(names));
        Ok(RunColumns { id: run.id(), points, point_keys, run })
    }

    /// The run in its file.
    pub fn reference(&self) -> &RunRef {
        &self.run
    }

    /// The run as its file describes it.
    pub fn view(&self) -> &RunView {
        self.run.view()
    }

    /// The run id, 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Committed steps.
    pub fn steps(&self) -> &[StepFrames] {
        &self.view().steps
    }

    /// Site `site` of the plan.
    pub fn site(&self, site: u32) -> Result<&SiteV1> {
        let index = usize::try_from(site).unwrap_or(usize::MAX);
        self.view().plan.sites.get(index).ok_or_else(|| self.no_site(site))
    }

    /// The columns that name a run: `run`, `label`; `None` for any other name.
    pub fn column(&self, name: &str, rows: usize) -> Result<Option<ArrayRef>> {
        Ok(match name {
            "run" => Some(column::constant_text(&self.id, rows)?),
            "label" => Some(column::constant_text(&self.view().identity.label, rows)?),
            _ => None,
        })
    }

    /// The columns that a plan tells about each of `sites`; `None` for any other name.
    pub fn site_column(&self, name: &str, sites: &[u32]) -> Result<Option<ArrayRef>> {
        Ok(Some(match name {
            "point" => {
                let keys = sites.iter().map(|site| self.point_key(*site)).collect::<Result<Vec<_>>>()?;
                column::indexed_text(Arc::clone(&self.points), keys)?
            }
            "layer" => column::layers(self.per_site(sites, |site| site.layer)?),
            "ordinal" => column::integers(self.per_site(sites, |site| site.ordinal)?),
            "occurrence" => column::integers(self.per_site(sites, |site| site.occurrence)?),
            "dtype" => {
                let names = sites.iter().map(|site| Ok(Some(self.site(*site)?.dtype.as_str())));
                column::few_texts(names.collect::<Result<Vec<_>>>()?)
            }
            "operation" => {
                let names = sites.iter().map(|site| Ok(Some(self.site(*site)?.operation.as_str())));
                let names = names.collect::<Result<Vec<_>>>()?;
                column::few_texts(names.into_iter().map(|name| name.filter(|name| !name.is_empty())))
            }
            // Most rows have no heads: NULL.
            "heads" => column::long_integers(self.per_site(sites, |site| match site.heads {
                0 => u64::MAX,
                heads => heads.into(),
            })?),
            "input_points" => {
                let names = sites.iter().map(|site| self.inputs(*site)).collect::<Result<Vec<_>>>()?;
                column::text_lists(names)
            }
            "weights" => {
                let known = &self.view().plan.weights;
                let name = |number: &u32| known.get(*number as usize).map(|weight| weight.canonical_name.as_str());
                let sites = sites.iter().map(|site| self.site(*site)).collect::<Result<Vec<_>>>()?;
                column::text_lists(sites.into_iter().map(|site| site.weights.iter().filter_map(name)))
            }
            _ => return Ok(None),
        }))
    }

    /// The points that `site` reads.
    fn inputs(&self, site: u32) -> Result<Vec<&str>> {
        self.site(site)?.inputs.iter().map(|input| Ok(self.site(*input)?.point.as_str())).collect()
    }

    fn per_site<T>(&self, sites: &[u32], get: impl Fn(&SiteV1) -> T) -> Result<Vec<T>> {
        let plan = &self.view().plan.sites;
        sites
            .iter()
            .map(|site| {
                let index = usize::try_from(*site).unwrap_or(usize::MAX);
                plan.get(index).map(&get).ok_or_else(|| self.no_site(*site))
            })
            .collect()
    }

    fn point_key(&self, site: u32) -> Result<i32> {
        let index = usize::try_from(site).unwrap_or(usize::MAX);
        self.point_keys.get(index).copied().ok_or_else(|| self.no_site(site))
    }

    fn no_site(&self, site: u32) -> Error {
        Error::malformed(format!("statistics of run {} name site {site}, which its plan does not have", self.id))
            .in_file(self.run.trace().path())
    }
}
