//! The ring's own instruments: the driver against a real Drill must show what was recorded.

use tests::interop::{jdbc, real_drillbit};
use tests::transcript::{self, Outcome};

#[test]
fn the_driver_shows_what_the_transcript_of_all_types_says_about_a_real_drill() {
    let (Some(drill), Some(jdbc)) = (real_drillbit(), jdbc()) else {
        return;
    };
    let connection = jdbc.connect(drill.user(), &[]).unwrap();
    for statement in transcript::read("types").unwrap() {
        println!("{}", statement.sql);
        match (connection.query(&statement.sql), statement.outcome) {
            (
                Ok((columns, read)),
                Outcome::Rows {
                    columns: expected,
                    rows,
                },
            ) => {
                assert_eq!(columns, expected);
                assert_eq!(read.kept, rows);
            }
            (Err(error), Outcome::Error(expected)) => {
                assert!(expected.starts_with(error.message.split(':').next().unwrap()));
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }
}
