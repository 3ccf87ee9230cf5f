//! In which order operators are checked and built.

use super::operator::OperatorHead;
use super::plan::StreamRef;
use super::reader::Reader;

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    New,
    OnPath,
    Done,
}

struct Walk<'w, 'n> {
    heads: &'w [OperatorHead<'n>],
    inputs: &'w [Vec<Option<StreamRef>>],
    visits: Vec<Visit>,
    /// Each before the one that it reads.
    path: Vec<usize>,
    order: Vec<usize>,
}

/// The operators in an order in which each comes after its inputs, otherwise as in the file. Those of
/// a cycle, which is reported, come in any order.
pub(super) fn order(
    heads: &[OperatorHead],
    inputs: &[Vec<Option<StreamRef>>],
    reader: &mut Reader,
) -> Vec<usize> {
    let visits = vec![Visit::New; heads.len()];
    let mut walk = Walk { heads, inputs, visits, path: Vec::new(), order: Vec::new() };
    for operator in 0..heads.len() {
        walk.visit(operator, reader);
    }
    walk.order
}

impl Walk<'_, '_> {
    /// Puts an operator behind its inputs. As deep as the file is long: files are bounded.
    fn visit(&mut self, operator: usize, reader: &mut Reader) {
        match self.visits[operator] {
            Visit::New => {}
            Visit::Done => return,
            Visit::OnPath => {
                let begin = self.path.iter().position(|&on| on == operator).unwrap_or(0);
                return report_cycle(&self.path[begin..], self.heads, reader);
            }
        }
        self.visits[operator] = Visit::OnPath;
        self.path.push(operator);
        for input in &self.inputs[operator] {
            if let Some(StreamRef::Operator(input)) = input {
                self.visit(*input, reader);
            }
        }
        self.path.pop();
        self.visits[operator] = Visit::Done;
        self.order.push(operator);
    }
}

/// `cycle` holds each operator before the one that it reads.
fn report_cycle(cycle: &[usize], heads: &[OperatorHead], reader: &mut Reader) {
    let first = cycle.iter().enumerate().min_by_key(|(_, operator)| heads[**operator].id_span);
    let Some((first_at, &first)) = first else { return };
    let mut chain: Vec<&str> = (0..cycle.len())
        .map(|i| heads[cycle[(first_at + cycle.len() - i) % cycle.len()]].id.as_str())
        .collect();
    chain.push(&heads[first].id);
    let read = heads[cycle[(first_at + 1) % cycle.len()]].id.as_str();
    let named = heads[first].inputs.iter().find(|input| input.value == read);
    let span = named.map_or(heads[first].id_span, |input| input.span);
    reader
        .problems
        .error(span, format!("these operators read each other in a cycle: {}", chain.join(" → ")))
        .help("let one of them read a source, or an operator that is not part of the cycle");
}
