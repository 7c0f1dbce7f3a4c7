//! The layer of environment variables: `TIDEGATE_API__LISTEN` for the key `listen` of `[api]`.

use std::collections::BTreeMap;

use super::{
    Settings,
    error::{ConfigError, Place, Problem, most_like},
    tree::{Node, Table, Value},
};

/// What the variables of the configuration begin with.
const PREFIX: &str = "TIDEGATE_";

/// What parts the section from the key.
const SEPARATOR: &str = "__";

/// The variable that names the configuration file.
pub(crate) const CONFIG_FILE: &str = "TIDEGATE_CONFIG";

/// Short forms of `TIDEGATE_LOG__FILTER`, the stronger first.
const LOG_FILTERS: &[&str] = &["TIDEGATE_LOG", "RUST_LOG"];

/// All variables of a process.
pub(crate) type Variables = BTreeMap<String, String>;

/// The variables of this process. What is not UTF-8 is left out: no key could be read from it.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// A variable that is set to something. An empty one counts as not set, as in `${X:-}`.
pub(crate) fn variable<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// Puts the variables over what the file says.
///
/// # Errors
/// [`Problem::Unknown`] for a variable that looks like one of ours (`TIDEGATE_…__…`) and is none. Others are left
/// alone: a cluster sets variables such as `TIDEGATE_PORT` for a service of this name.
pub(crate) fn apply(root: &mut Table, variables: &Variables) -> Result<(), ConfigError> {
    let forms = forms();
    let ours = |name: &str| name.starts_with(PREFIX) && name.contains(SEPARATOR);
    let known = |name: &str| forms.iter().any(|form| form.variable == name);
    if let Some(name) = variables.keys().find(|name| ours(name) && !known(name)) {
        let nearest = most_like(name, forms.iter().map(|form| form.variable.as_str()));
        let problem = Problem::Unknown { kind: "variable", name: name.clone(), known: nearest };
        return Err(problem.at(&Place::Variable(name.clone())));
    }
    for form in &forms {
        if let Some(text) = variable(variables, &form.variable) {
            let place = Place::Variable(form.variable.clone());
            let node = Node::raw(&place, text);
            // A list is taken apart here, so that its elements have places as those in a file have.
            let node = if form.is_list { node.typed()?.into_owned() } else { node };
            put(root, form.section, form.key, node);
        }
    }
    let filter = LOG_FILTERS.iter().find_map(|name| Some((*name, variable(variables, name)?)));
    if let Some((name, text)) = filter
        && variable(variables, "TIDEGATE_LOG__FILTER").is_none()
    {
        put(root, Some("log"), "filter", Node::raw(&Place::Variable(name.to_owned()), text));
    }
    Ok(())
}

/// Sets a key, over what is there.
pub(crate) fn put(root: &mut Table, section: Option<&str>, key: &str, node: Node) {
    let Some(section) = section else {
        root.insert(key.to_owned(), node);
        return;
    };
    let empty = Node { place: node.place.clone(), value: Value::Table(Table::new()) };
    // A section that is no table is refused when it is read.
    if let Value::Table(table) = &mut root.entry(section.to_owned()).or_insert(empty).value {
        table.insert(key.to_owned(), node);
    }
}

/// A key and its variable.
pub(crate) struct Form {
    pub(crate) section: Option<&'static str>,
    pub(crate) key: &'static str,
    pub(crate) variable: String,
    is_list: bool,
}

/// Every key that has a variable: all but those inside of lists, of which the whole list has one.
pub(crate) fn forms() -> Vec<Form> {
    let top = Settings::TOP.iter().map(|key| (None, *key, *key != "data_dir"));
    let sections = Settings::SECTIONS.iter().flat_map(|(section, keys)| {
        keys.iter().map(move |key| (Some(*section), key.name, key.kind == "list"))
    });
    let form = |(section, key, is_list): (Option<&'static str>, &'static str, bool)| {
        let section_part = section.map(|section| format!("{section}{SEPARATOR}")).unwrap_or_default();
        let variable = format!("{PREFIX}{}", format!("{section_part}{key}").to_uppercase());
        Form { section, key, variable, is_list }
    };
    top.chain(sections).map(form).collect()
}
