//! The sample table `employee.json`: 1,155 invented employees of an invented chain of stores, with the columns
//! of the table of that name that Drill's users know. Made from a fixed seed: the same on every node.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

/// The file's name in `cp`.
pub(super) const FILE: &str = "employee.json";
const ROWS: usize = 1155;
/// Stores are numbered from 1; 0 is the head office.
const STORES: u64 = 24;

const FEMALE: [&str; 16] = [
    "Asta", "Bryony", "Celia", "Dagny", "Edda", "Fenja", "Greta", "Hilde", "Inka", "Jorun", "Kaja",
    "Lovisa", "Merle", "Nele", "Oda", "Runa",
];
const MALE: [&str; 16] = [
    "Anselm", "Bjarne", "Corin", "Detlev", "Eskil", "Falk", "Gerrit", "Hauke", "Ivar", "Jasper",
    "Knut", "Lennart", "Malte", "Norbert", "Ole", "Rasmus",
];
const FAMILY: [&str; 32] = [
    "Abendroth",
    "Birkholz",
    "Claasen",
    "Dornbusch",
    "Ehlers",
    "Feldmann",
    "Grothe",
    "Hollander",
    "Immendorf",
    "Jessen",
    "Kranich",
    "Lindqvist",
    "Moorkamp",
    "Nordmeyer",
    "Osterloh",
    "Petersohn",
    "Quandt",
    "Rabenau",
    "Stellmacher",
    "Tiedemann",
    "Uhlenbrock",
    "Vossberg",
    "Wiesengrund",
    "Zumbrock",
    "Aldermoor",
    "Brackwater",
    "Copperfeld",
    "Duskwood",
    "Elmsworth",
    "Fairweather",
    "Greyling",
    "Heathcote",
];
const EDUCATION: [&str; 5] = [
    "Bachelors Degree",
    "Graduate Degree",
    "High School Degree",
    "Partial College",
    "Partial High School",
];

/// A kind of work: title, department, salary and who counts as its management.
struct Position {
    id: i64,
    title: &'static str,
    department: i64,
    salary: f64,
    role: &'static str,
}

const fn position(
    id: i64,
    title: &'static str,
    department: i64,
    salary: f64,
    role: &'static str,
) -> Position {
    Position {
        id,
        title,
        department,
        salary,
        role,
    }
}

/// The first nine employees: the head office, one of each.
const HEAD_OFFICE: [Position; 9] = [
    position(1, "President", 1, 80_000.0, "Senior Management"),
    position(2, "VP Country Manager", 1, 40_000.0, "Senior Management"),
    position(2, "VP Country Manager", 1, 40_000.0, "Senior Management"),
    position(2, "VP Country Manager", 1, 35_000.0, "Senior Management"),
    position(
        3,
        "VP Information Systems",
        2,
        25_000.0,
        "Senior Management",
    ),
    position(4, "VP Human Resources", 3, 15_000.0, "Senior Management"),
    position(5, "VP Finance", 5, 50_000.0, "Senior Management"),
    position(
        6,
        "HQ Information Systems",
        2,
        12_500.0,
        "Middle Management",
    ),
    position(7, "HQ Marketing", 4, 12_000.0, "Middle Management"),
];

/// Who works in the stores.
const STORE: [Position; 8] = [
    position(11, "Store Manager", 11, 11_500.0, "Store Management"),
    position(
        12,
        "Store Assistant Manager",
        11,
        8_000.0,
        "Store Management",
    ),
    position(
        13,
        "Store Shift Supervisor",
        11,
        7_200.0,
        "Store Management",
    ),
    position(
        14,
        "Store Information Systems",
        14,
        6_100.0,
        "Store Full Time Staf",
    ),
    position(
        15,
        "Store Permanent Checker",
        15,
        6_800.0,
        "Store Full Time Staf",
    ),
    position(
        16,
        "Store Temporary Checker",
        16,
        4_900.0,
        "Store Temp Staff",
    ),
    position(
        17,
        "Store Permanent Stocker",
        17,
        6_300.0,
        "Store Full Time Staf",
    ),
    position(
        18,
        "Store Temporary Stocker",
        18,
        4_300.0,
        "Store Temp Staff",
    ),
];

struct Employee {
    id: i64,
    first: &'static str,
    last: &'static str,
    position: &'static Position,
    store: i64,
    birth_date: String,
    hire_date: String,
    salary: f64,
    supervisor: i64,
    education: &'static str,
    married: bool,
    female: bool,
}

/// All employees as one batch.
pub(super) fn employees() -> Result<RecordBatch, ArrowError> {
    let mut chance = Chance(0x5DEE_CE66_D1CE_4E5B);
    let rows: Vec<Employee> = (0..ROWS).map(|row| employee(row, &mut chance)).collect();
    let int = |of: fn(&Employee) -> i64| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Int64Array>())
    };
    let text = |of: fn(&Employee) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(of).map(Some).collect::<StringArray>())
    };
    let columns: [(&str, ArrayRef); 17] = [
        ("employee_id", int(|e| e.id)),
        ("full_name", text(|e| format!("{} {}", e.first, e.last))),
        ("first_name", text(|e| e.first.to_owned())),
        ("last_name", text(|e| e.last.to_owned())),
        ("position_id", int(|e| e.position.id)),
        ("position_title", text(|e| e.position.title.to_owned())),
        ("store_id", int(|e| e.store)),
        ("department_id", int(|e| e.position.department)),
        ("birth_date", text(|e| e.birth_date.clone())),
        ("hire_date", text(|e| e.hire_date.clone())),
        (
            "salary",
            Arc::new(rows.iter().map(|e| e.salary).collect::<Float64Array>()),
        ),
        ("supervisor_id", int(|e| e.supervisor)),
        ("education_level", text(|e| e.education.to_owned())),
        (
            "marital_status",
            text(|e| if e.married { "M" } else { "S" }.to_owned()),
        ),
        (
            "gender",
            text(|e| if e.female { "F" } else { "M" }.to_owned()),
        ),
        ("management_role", text(|e| e.position.role.to_owned())),
        ("end_date", Arc::new(StringArray::new_null(ROWS))),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, values)| Field::new(*name, values.data_type().clone(), true))
        .collect();
    debug_assert!(
        fields
            .iter()
            .all(|field| *field.data_type() != DataType::Null)
    );
    RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns.into_iter().map(|(_, values)| values).collect(),
    )
}

fn employee(row: usize, chance: &mut Chance) -> Employee {
    let head = HEAD_OFFICE.get(row);
    let position = head.unwrap_or_else(|| chance.one_of(&STORE));
    let female = chance.below(2) == 0;
    let extra = if head.is_some() {
        0
    } else {
        chance.below(20) * 10
    };
    Employee {
        id: employee_id(row),
        first: chance.one_of::<&str>(if female { &FEMALE } else { &MALE }),
        last: chance.one_of::<&str>(&FAMILY),
        position,
        store: if head.is_some() {
            0
        } else {
            to_i64(1 + chance.below(STORES))
        },
        birth_date: format!(
            "{}-{:02}-{:02}",
            1930 + chance.below(50),
            1 + chance.below(12),
            1 + chance.below(28)
        ),
        hire_date: format!(
            "{}-{:02}-01 00:00:00.0",
            1994 + chance.below(5),
            1 + chance.below(12)
        ),
        salary: position.salary + f64::from(u32::try_from(extra).unwrap_or_default()),
        supervisor: if row == 0 {
            0
        } else {
            employee_id(to_usize(chance.below(row.min(40) as u64)))
        },
        education: chance.one_of::<&str>(&EDUCATION),
        married: chance.below(2) == 0,
        female,
    }
}

/// 1, 2, 4, 5, ...: one employee has left.
fn employee_id(row: usize) -> i64 {
    let id = i64::try_from(row).unwrap_or(i64::MAX) + 1;
    if id > 2 { id + 1 } else { id }
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A small generator of numbers (xorshift), so that the rows never change with a library.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn one_of<T>(&mut self, choices: &'static [T]) -> &'static T {
        &choices[to_usize(self.below(choices.len() as u64))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};

    #[test]
    fn the_rows_are_the_same_every_time() {
        assert_eq!(employees().expect("rows"), employees().expect("rows"));
    }

    #[test]
    fn the_shape_is_the_one_that_queries_expect() {
        let rows = employees().expect("rows");
        assert_eq!((rows.num_rows(), rows.num_columns()), (1155, 17));
        let ids = rows
            .column_by_name("employee_id")
            .expect("ids")
            .as_primitive::<Int64Type>()
            .clone();
        assert_eq!(ids.values()[..9], [1, 2, 4, 5, 6, 7, 8, 9, 10]);
        let salaries = rows
            .column_by_name("salary")
            .expect("salaries")
            .as_primitive::<Float64Type>()
            .clone();
        assert_eq!(arrow::compute::max(&salaries), Some(80_000.0));
        let stores = rows
            .column_by_name("store_id")
            .expect("stores")
            .as_primitive::<Int64Type>()
            .clone();
        assert_eq!(
            (arrow::compute::min(&stores), arrow::compute::max(&stores)),
            (Some(0), Some(24))
        );
    }
}
