//! Operators of a topology file that split a stream.
//!
//! What reads a branch names it by the operator's id and its own. For the rest of the checker, and in the plan, a branch
//! is an operator that reads the one that splits: whatever reads streams needs not know of it.

use std::sync::Arc;

use super::diagnostic::{known_names, quoted};
use super::operator::{OperatorHead, Word, check_condition};
use super::plan::OperatorKind;
use super::reader::{Fields, Reader, Text};
use super::stream::Stream;
use super::yaml::{Data, Entry};

/// Stands between the id of the operator and the name of the branch. No id holds it.
const SEPARATOR: char = '/';

/// The names of the branches, that of `otherwise` last.
pub(super) fn read_branches(fields: &Fields, reader: &mut Reader) -> Vec<Text> {
    let help = "name the branches and say what goes there, as in `branches: { large: 'amount > 100.0' }`";
    let mut names: Vec<Text> = Vec::new();
    if let Some(node) = reader.required(fields, "branches", help) {
        for entry in reader.entries(node, "`branches`").unwrap_or_default() {
            reader.check_id(&entry.key, entry.key_span, "a branch's name");
            names.push(Text::of_key(&entry.key, entry.key_span));
        }
        if matches!(&node.data, Data::Mapping(entries) if entries.is_empty()) {
            reader.problems.error(node.span, "`branches` is empty").help(help);
        }
    }
    let otherwise = fields.get("otherwise").and_then(|node| reader.text(node, "`otherwise`"));
    if let Some(name) = otherwise {
        reader.check_id(&name.value, name.span, "a branch's name");
        match names.iter().find(|other| other.value == name.value) {
            Some(first) => {
                let message = format!("`{}` is the name of another branch already", name.value);
                reader.problems.error(name.span, message).first_at(first.span);
            }
            None => names.push(name),
        }
    }
    names
}

/// An operator, and its branches as operators that read it.
pub(super) fn with_branches<'n>(head: OperatorHead<'n>) -> impl Iterator<Item = OperatorHead<'n>> {
    let of = |(number, name): (usize, &Text)| OperatorHead {
        id: format!("{}{SEPARATOR}{}", head.id, name.value),
        id_span: name.span,
        word: Some(Word::Output(number)),
        inputs: vec![Text::of_key(&head.id, name.span)],
        branches: Vec::new(),
        fields: None,
    };
    let branches: Vec<OperatorHead> = head.branches.iter().enumerate().map(of).collect();
    std::iter::once(head).chain(branches)
}

/// Checks the conditions.
pub(super) fn check_branches(
    fields: &Fields,
    branches: &[Text],
    input: &Stream,
    reader: &mut Reader,
) -> Option<OperatorKind> {
    let Some(Data::Mapping(entries)) = fields.get("branches").map(|node| &node.data) else { return None };
    let condition = |entry: &Entry| {
        check_condition(&entry.value, &format!("`{}`", entry.key), input, reader).map(Arc::new)
    };
    // Each is checked, whether the others are right or not.
    let conditions: Vec<_> = entries.iter().map(condition).collect();
    let conditions: Option<Vec<_>> = conditions.into_iter().collect();
    let conditions = conditions.filter(|conditions| !conditions.is_empty())?;
    let otherwise = branches.len() > conditions.len();
    Some(OperatorKind::Branch { conditions, otherwise })
}

/// Reports an id that is neither a source's nor an operator's, nor a branch.
pub(super) fn report_unknown_input(input: &Text, known: &[&str], reader: &mut Reader) {
    let of_input = |id: &&&str| id.strip_prefix(&input.value).is_some_and(|rest| rest.starts_with(SEPARATOR));
    let branches: Vec<&str> = known.iter().filter(of_input).copied().collect();
    if !branches.is_empty() {
        let message = format!("`{}` is split: its rows are read branch by branch", input.value);
        let help = format!("read one of {}", quoted(&branches));
        reader.problems.error(input.span, message).help(help);
        return;
    }
    reader
        .problems
        .error(input.span, format!("there is no source or operator `{}`", input.value))
        .help(known_names(&input.value, known));
}
