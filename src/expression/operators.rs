//! Arithmetic, comparison and `in`: which types they take, and their closures.

use std::fmt::Display;
use std::mem::discriminant;

use ahash::AHashSet;

use super::compile::{
    Constant, Evaluated, Failure, Operand, Truth, binary, binary_test, code, failure, null_or_fail, show,
    test, truth_slot, unary, unary_test,
};
use crate::record::{Slot, Type};

/// An arithmetic operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Remainder => "%",
        })
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        })
    }
}

/// What slots are read as by an operation: one Rust type for the types that it treats alike.
trait Kind {
    type Of<'x>: PartialOrd;
    /// `None` for null and for any other type.
    fn get<'x>(slot: Slot<'x>) -> Option<Self::Of<'x>>;
}

/// Ints, and milliseconds.
struct Whole;
/// Doubles, and ints promoted.
struct Number;
struct Text;
struct Blob;
struct Flag;

impl Kind for Whole {
    type Of<'x> = i64;
    #[inline]
    fn get<'x>(slot: Slot<'x>) -> Option<i64> {
        match slot {
            Slot::Int(value) | Slot::Timestamp(value) | Slot::Duration(value) => Some(value),
            _ => None,
        }
    }
}

impl Kind for Number {
    type Of<'x> = f64;
    #[inline]
    fn get<'x>(slot: Slot<'x>) -> Option<f64> {
        match slot {
            Slot::Double(value) => Some(value),
            Slot::Int(value) => Some(value as f64),
            _ => None,
        }
    }
}

impl Kind for Text {
    type Of<'x> = &'x str;
    #[inline]
    fn get<'x>(slot: Slot<'x>) -> Option<&'x str> {
        match slot {
            Slot::String(value) => Some(value),
            _ => None,
        }
    }
}

impl Kind for Blob {
    type Of<'x> = &'x [u8];
    #[inline]
    fn get<'x>(slot: Slot<'x>) -> Option<&'x [u8]> {
        match slot {
            Slot::Bytes(value) => Some(value),
            _ => None,
        }
    }
}

impl Kind for Flag {
    type Of<'x> = bool;
    #[inline]
    fn get<'x>(slot: Slot<'x>) -> Option<bool> {
        match slot {
            Slot::Bool(value) => Some(value),
            _ => None,
        }
    }
}

/// The type of `left op right`; `None` where the operator does not take these types.
pub(super) fn arithmetic_type(op: Arithmetic, left: Type, right: Type) -> Option<Type> {
    use Arithmetic::{Add, Remainder, Subtract};
    use Type::{Bytes, Double, Duration, Int, String, Timestamp};
    match (op, left, right) {
        (_, Int, Int) => Some(Int),
        (Remainder, _, _) => None,
        (_, Int | Double, Int | Double) => Some(Double),
        (Add, String, String) => Some(String),
        (Add, Bytes, Bytes) => Some(Bytes),
        (Add | Subtract, Duration, Duration) => Some(Duration),
        (Add | Subtract, Timestamp, Duration) => Some(Timestamp),
        (Add, Duration, Timestamp) => Some(Timestamp),
        (Subtract, Timestamp, Timestamp) => Some(Duration),
        _ => None,
    }
}

/// `left op right`, whose type [`arithmetic_type`] has found to be `ty`.
pub(super) fn arithmetic(op: Arithmetic, ty: Type, left: Operand, right: Operand) -> Operand {
    match ty {
        Type::Int => whole(op, left, right, Slot::Int),
        Type::Timestamp => whole(op, left, right, Slot::Timestamp),
        Type::Duration => whole(op, left, right, Slot::Duration),
        Type::Double => match op {
            Arithmetic::Add => double(op, left, right, |a, b| a + b),
            Arithmetic::Subtract => double(op, left, right, |a, b| a - b),
            Arithmetic::Multiply => double(op, left, right, |a, b| a * b),
            Arithmetic::Divide | Arithmetic::Remainder => double(op, left, right, |a, b| a / b),
        },
        Type::String | Type::Bool | Type::Bytes | Type::List(_) => {
            binary(left, right, |left, right, environment| match (left, right) {
                (Slot::String(a), Slot::String(b)) => {
                    let (length, arena) = (a.len() + b.len(), environment.arena);
                    environment.spend(length)?;
                    let mut text = bumpalo::collections::String::with_capacity_in(length, arena);
                    text.push_str(a);
                    text.push_str(b);
                    Ok(Slot::String(text.into_bump_str()))
                }
                (Slot::Bytes(a), Slot::Bytes(b)) => {
                    let (length, arena) = (a.len() + b.len(), environment.arena);
                    environment.spend(length)?;
                    let mut bytes = bumpalo::collections::Vec::with_capacity_in(length, arena);
                    bytes.extend_from_slice_copy(a);
                    bytes.extend_from_slice_copy(b);
                    Ok(Slot::Bytes(bytes.into_bump_slice()))
                }
                (left, right) => null_or_fail(&[left, right]),
            })
        }
    }
}

/// Arithmetic of ints and milliseconds.
fn whole<M>(op: Arithmetic, left: Operand, right: Operand, make: M) -> Operand
where
    M: Fn(i64) -> Slot<'static> + Copy + Send + Sync + 'static,
{
    match op {
        Arithmetic::Add => checked(op, left, right, i64::checked_add, make),
        Arithmetic::Subtract => checked(op, left, right, i64::checked_sub, make),
        Arithmetic::Multiply => checked(op, left, right, i64::checked_mul, make),
        Arithmetic::Divide => checked(op, left, right, i64::checked_div, make),
        Arithmetic::Remainder => checked(op, left, right, i64::checked_rem, make),
    }
}

fn checked<F, M>(op: Arithmetic, left: Operand, right: Operand, f: F, make: M) -> Operand
where
    F: Fn(i64, i64) -> Option<i64> + Send + Sync + 'static,
    M: Fn(i64) -> Slot<'static> + Send + Sync + 'static,
{
    binary(left, right, move |left, right, _| match (Whole::get(left), Whole::get(right)) {
        (Some(a), Some(b)) => f(a, b).map(&make).ok_or_else(|| failed(op, left, right)),
        _ => null_or_fail(&[left, right]),
    })
}

fn double<F>(op: Arithmetic, left: Operand, right: Operand, f: F) -> Operand
where
    F: Fn(f64, f64) -> f64 + Send + Sync + 'static,
{
    binary(left, right, move |left, right, _| match (Number::get(left), Number::get(right)) {
        (Some(a), Some(b)) => {
            let value = f(a, b);
            if value.is_finite() { Ok(Slot::Double(value)) } else { Err(failed(op, left, right)) }
        }
        _ => null_or_fail(&[left, right]),
    })
}

/// Why an arithmetic operation on two values that it takes has no result.
#[cold]
fn failed(op: Arithmetic, left: Slot<'_>, right: Slot<'_>) -> Failure {
    let by_zero = matches!(op, Arithmetic::Divide | Arithmetic::Remainder) && Number::get(right) == Some(0.0);
    let what = if by_zero { "division by zero" } else { "overflow" };
    failure(format!("{what}: {} {op} {}", show(left), show(right)))
}

/// `-operand`, an int or a double.
pub(super) fn negate(operand: Operand) -> Operand {
    unary(operand, |slot, _| match slot {
        Slot::Double(value) => Ok(Slot::Double(-value)),
        Slot::Int(value) => {
            value.checked_neg().map(Slot::Int).ok_or_else(|| failure(format!("overflow: -({value})")))
        }
        other => null_or_fail(&[other]),
    })
}

/// Whether values of the two types may be compared; lists only by `==` and `!=`.
pub(super) fn comparable(left: Type, right: Type) -> bool {
    left.common(right).is_some()
        || matches!((left, right), (Type::Int, Type::Double) | (Type::Double, Type::Int))
}

/// A comparison of two types that are [`comparable`].
pub(super) fn comparison(op: Comparison, types: (Type, Type), left: Operand, right: Operand) -> Operand {
    match types.0 {
        Type::Int | Type::Double if types != (Type::Int, Type::Int) => compare::<Number>(op, left, right),
        Type::Int | Type::Double | Type::Timestamp | Type::Duration => compare::<Whole>(op, left, right),
        Type::String => compare::<Text>(op, left, right),
        Type::Bytes => compare::<Blob>(op, left, right),
        Type::Bool => compare::<Flag>(op, left, right),
        Type::List(_) => {
            let expected = op == Comparison::Equal;
            test(move |environment| {
                let (left, right) = (left.eval(environment)?, right.eval(environment)?);
                if let Slot::List(elements) = left {
                    environment.spend(elements.len())?;
                }
                Ok(equal(left, right)?.map(|equal| equal == expected))
            })
        }
    }
}

fn compare<K: Kind>(op: Comparison, left: Operand, right: Operand) -> Operand {
    match op {
        Comparison::Equal => binary_test(left, right, |a, b| tested::<K>(a, b, |a, b| a == b)),
        Comparison::NotEqual => binary_test(left, right, |a, b| tested::<K>(a, b, |a, b| a != b)),
        Comparison::Less => binary_test(left, right, |a, b| tested::<K>(a, b, |a, b| a < b)),
        Comparison::LessOrEqual => binary_test(left, right, |a, b| tested::<K>(a, b, |a, b| a <= b)),
        Comparison::Greater => binary_test(left, right, |a, b| tested::<K>(a, b, |a, b| a > b)),
        Comparison::GreaterOrEqual => binary_test(left, right, |a, b| tested::<K>(a, b, |a, b| a >= b)),
    }
}

#[inline]
fn tested<'x, K: Kind>(
    left: Slot<'x>,
    right: Slot<'x>,
    test: impl Fn(K::Of<'x>, K::Of<'x>) -> bool,
) -> Truth {
    match (K::get(left), K::get(right)) {
        (Some(a), Some(b)) => Ok(Some(test(a, b))),
        _ => null_or_fail(&[left, right]),
    }
}

/// Constants that `in` looks through one by one; more go into a hash set.
const SCANNED_MAX: usize = 4;

/// `needle in [elements]`: true if one equals it; otherwise null if the needle or an element is null;
/// otherwise false. Elements after an equal one are not evaluated. `mixed`: ints beside doubles.
pub(super) fn contains(needle: Operand, elements: Vec<Operand>, mixed: bool) -> Operand {
    let constants: Vec<Constant> =
        elements.iter().filter_map(|element| element.constant().cloned()).collect();
    if constants.len() < elements.len() {
        return code(move |environment| {
            let needle = needle.eval(environment)?;
            scan(needle, elements.iter().map(|element| element.eval(environment))).map(truth_slot)
        });
    }
    let unknown = constants.contains(&Constant::Null);
    let strings: AHashSet<Box<str>> =
        constants.iter().filter_map(|constant| Text::get(constant.slot()).map(Box::from)).collect();
    let wholes: AHashSet<i64> = constants.iter().filter_map(|constant| Whole::get(constant.slot())).collect();
    if strings.len() > SCANNED_MAX {
        member::<Text>(needle, unknown, move |text| strings.contains(*text))
    } else if wholes.len() > SCANNED_MAX && !mixed {
        member::<Whole>(needle, unknown, move |value| wholes.contains(value))
    } else {
        unary_test(needle, move |needle| scan(needle, constants.iter().map(|constant| Ok(constant.slot()))))
    }
}

fn member<K: Kind>(
    needle: Operand,
    unknown: bool,
    found: impl Fn(&K::Of<'_>) -> bool + Send + Sync + 'static,
) -> Operand {
    unary_test(needle, move |needle| match K::get(needle) {
        Some(value) => Ok(if found(&value) {
            Some(true)
        } else if unknown {
            None
        } else {
            Some(false)
        }),
        None => null_or_fail(&[needle]),
    })
}

pub(super) fn scan<'x>(needle: Slot<'x>, elements: impl Iterator<Item = Evaluated<'x>>) -> Truth {
    let mut unknown = needle.is_null();
    for element in elements {
        match equal(needle, element?)? {
            Some(true) => return Ok(Some(true)),
            Some(false) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { None } else { Some(false) })
}

/// Whether two values are equal; null if one is null. Lists are if they are equally long and have equal elements, where
/// null equals null.
fn equal(left: Slot<'_>, right: Slot<'_>) -> Truth {
    match (left, right) {
        (Slot::Int(a), Slot::Double(b)) | (Slot::Double(b), Slot::Int(a)) => Ok(Some(a as f64 == b)),
        (left, right) if discriminant(&left) == discriminant(&right) => {
            Ok(if left.is_null() { None } else { Some(left == right) })
        }
        (left, right) => null_or_fail(&[left, right]),
    }
}
