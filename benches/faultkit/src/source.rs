//! Holds a list of failpoints against the sources that have them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::Point;

/// How a failpoint looks in the sources.
const MACRO: &str = "fail_point!(";

/// A difference between list and sources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// In the sources, not in the list.
    #[error("{name} in {} is not listed", file.display())]
    Unlisted {
        /// The failpoint.
        name: String,
        /// Where it is.
        file: PathBuf,
    },
    /// In the list, not in the sources.
    #[error("{name} is listed and nowhere used")]
    Unused {
        /// The failpoint.
        name: String,
    },
    /// At more than one place, so that a death there says little.
    #[error("{name} is used {times} times")]
    NotOnce {
        /// The failpoint.
        name: String,
        /// How often.
        times: usize,
    },
    /// More than once in the list.
    #[error("{name} is listed {times} times")]
    ListedTwice {
        /// The failpoint.
        name: String,
        /// How often.
        times: usize,
    },
    /// A name that is not written out.
    #[error("a failpoint in {} has a name that is no literal", file.display())]
    NoLiteral {
        /// Where it is.
        file: PathBuf,
    },
}

/// What differs between `points` and the Rust sources below `folder`.
///
/// # Errors
/// If the sources cannot be read.
pub fn complaints(folder: &Path, points: &[Point]) -> io::Result<Vec<Complaint>> {
    let mut complaints = Vec::new();
    let mut used = BTreeMap::<String, Vec<PathBuf>>::new();
    for file in sources(folder)? {
        for name in names(&fs::read_to_string(&file)?) {
            match name {
                Some(name) => used.entry(name).or_default().push(file.clone()),
                None => complaints.push(Complaint::NoLiteral { file: file.clone() }),
            }
        }
    }
    let mut listed = BTreeMap::<&str, usize>::new();
    for (name, _) in points {
        *listed.entry(name).or_default() += 1;
    }
    for (name, times) in &listed {
        let name = name.to_string();
        if *times > 1 {
            complaints.push(Complaint::ListedTwice { name: name.clone(), times: *times });
        }
        if !used.contains_key(&name) {
            complaints.push(Complaint::Unused { name });
        }
    }
    for (name, files) in used {
        if !listed.contains_key(&*name) {
            let file = files[0].clone();
            complaints.push(Complaint::Unlisted { name: name.clone(), file });
        }
        if files.len() > 1 {
            complaints.push(Complaint::NotOnce { name, times: files.len() });
        }
    }
    Ok(complaints)
}

fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for item in fs::read_dir(folder)? {
        let path = item?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The names of the failpoints in a source; none for one that is no literal.
fn names(source: &str) -> impl Iterator<Item = Option<String>> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let after = code.split(MACRO).skip(1).map(|rest| {
        let (name, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        Some(name.to_owned())
    });
    after.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_over_lines_and_not_in_comments() {
        let source = "fail::fail_point!(\"a\");\n// fail_point!(\"b\")\nfail_point!(\n  \"c\", |_| ());\nfail_point!(name);";
        let found: Vec<_> = names(source).collect();
        assert_eq!(found, [Some("a".to_owned()), Some("c".to_owned()), None]);
    }

    #[test]
    fn every_difference_is_told() {
        let folder = Path::new("tests/differences");
        let points = [("listed", ""), ("gone", ""), ("twice", ""), ("double", ""), ("double", "")];
        let said = complaints(folder, &points).expect("reads");
        let said: Vec<_> = said.iter().map(ToString::to_string).collect();
        let unlisted = folder.join("a.rs");
        assert_eq!(
            said,
            [
                "double is listed 2 times".to_owned(),
                "gone is listed and nowhere used".to_owned(),
                "twice is used 2 times".to_owned(),
                format!("unlisted in {} is not listed", unlisted.display()),
            ]
        );
    }
}
