//! Scopes: what a token is for (`repository:acme/app:pull,push`).

use std::collections::BTreeSet;
use std::fmt;

/// Actions on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Scope {
    /// `repository:acme/app`.
    resource: String,
    actions: BTreeSet<String>,
}

impl Scope {
    pub(in crate::registry) fn repository(name: &str, actions: &[&str]) -> Scope {
        Scope { resource: format!("repository:{name}"), actions: actions.iter().map(|&action| action.to_owned()).collect() }
    }

    /// The right to list the repositories of a registry.
    pub(in crate::registry) fn catalog() -> Scope {
        Scope { resource: "registry:catalog".to_owned(), actions: BTreeSet::from(["*".to_owned()]) }
    }

    /// Reads one scope; `None` for what has no resource and actions.
    pub(super) fn parse(text: &str) -> Option<Scope> {
        let (resource, actions) = text.rsplit_once(':')?;
        if resource.is_empty() || actions.is_empty() {
            return None;
        }
        Some(Scope { resource: resource.to_owned(), actions: actions.split(',').map(str::to_owned).collect() })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.resource)?;
        for (i, action) in self.actions.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(action)?;
        }
        Ok(())
    }
}

/// Whether a token for `have` may be used where `wanted` is needed.
pub(in crate::registry) fn covers(have: &[Scope], wanted: &[Scope]) -> bool {
    wanted.iter().all(|wanted| have.iter().any(|have| have.resource == wanted.resource && have.actions.is_superset(&wanted.actions)))
}

/// All of `a` and `b`, each resource once.
pub(in crate::registry) fn merge(a: &[Scope], b: &[Scope]) -> Vec<Scope> {
    let mut merged: Vec<Scope> = Vec::new();
    for scope in a.iter().chain(b) {
        match merged.iter_mut().find(|known| known.resource == scope.resource) {
            Some(known) => known.actions.extend(scope.actions.iter().cloned()),
            None => merged.push(scope.clone()),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_to_push_serves_to_pull_but_not_elsewhere() {
        let push = [Scope::repository("a/b", &["pull", "push"])];
        assert!(covers(&push, &[Scope::repository("a/b", &["pull"])]));
        assert!(!covers(&push, &[Scope::repository("a/c", &["pull"])]));
        assert!(!covers(&push, &[Scope::repository("a/b", &["delete"])]));
        assert!(covers(&[], &[]));
    }

    #[test]
    fn merged_scopes_name_each_repository_once() {
        let merged = merge(&[Scope::repository("a", &["pull"])], &[Scope::repository("a", &["push"]), Scope::repository("b", &["pull"])]);
        let text: Vec<String> = merged.iter().map(Scope::to_string).collect();
        assert_eq!(text, ["repository:a:pull,push", "repository:b:pull"]);
    }
}
