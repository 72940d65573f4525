//! The picture of docs/architecture.md is true: a module uses only what stands above it there, and unsafe code is
//! where the page says.

use crate::support::package;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules that every other one may use.
const FREE: [&str; 2] = ["error", "tensor"];

fn page() -> String {
    std::fs::read_to_string(package().join("docs/architecture.md")).unwrap()
}

/// Modules in the order of the picture: the lines that begin with ` src/`.
fn picture(page: &str) -> Vec<&str> {
    page.lines().filter_map(|line| line.strip_prefix(" src/")?.split_whitespace().next()).collect()
}

/// Every source file that is not a test's, as a path below src/, with its text.
fn sources() -> Vec<(String, String)> {
    fn read(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.ends_with("tests") => {}
                true => read(&path, found),
                false => found.push(path),
            }
        }
    }
    let root = package().join("src");
    let mut found = Vec::new();
    read(&root, &mut found);
    let named = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(named).collect()
}

/// Modules that follow `crate::` outside comments and the tests at the end of a file.
fn uses(text: &str) -> BTreeSet<&str> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let paths = lines.flat_map(|line| line.split("crate::").skip(1));
    let names = paths.map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap());
    // An empty name is a group, `crate::{...}`: it is kept, and stands nowhere. A capital begins a name of the root.
    names.filter(|name| !name.starts_with(char::is_uppercase)).collect()
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let text = "//! [`crate::cli`]\nuse crate::sql::Session;\n    let x = crate::open::y(crate::Error);\nuse crate::{a, b};\n\
                #[cfg(test)]\nmod tests {\n    use crate::report::Z;\n}\n";
    assert_eq!(uses(text), BTreeSet::from(["", "open", "sql"]));
}

#[test]
fn a_module_uses_only_what_stands_above_it() {
    let page = page();
    let order = picture(&page);
    let place = |module: &str| order.iter().position(|name| *name == module);
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        if ["lib", "bin"].contains(&module) {
            continue;
        }
        let free = FREE.contains(&module);
        assert!(free || place(module).is_some(), "src/{module} is not in the picture of docs/architecture.md");
        seen.insert(module.to_owned());
        for used in uses(&text).into_iter().filter(|used| *used != module && !FREE.contains(used)) {
            if free || place(used).is_none_or(|above| Some(above) >= place(module)) {
                wrong.push(format!("src/{file} uses `{used}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the order of docs/architecture.md:\n{}", wrong.join("\n"));
    assert!(order.iter().all(|module| seen.contains(*module)), "the picture has a module that src has not: {order:?}");
}

#[test]
fn unsafe_code_is_where_the_page_says() {
    let page = page();
    let section = page.split("## Where the unsafe code is").nth(1).unwrap();
    let told: BTreeSet<String> =
        section.split('`').filter_map(|word| word.strip_prefix("src/")).map(str::to_owned).collect();
    let found = sources().into_iter().filter(|(_, text)| text.contains("allow(unsafe_code)"));
    assert_eq!(found.map(|(file, _)| file).collect::<BTreeSet<_>>(), told);
}
