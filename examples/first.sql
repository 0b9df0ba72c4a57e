-- From the repository's root:  cargo run --release < examples/first.sql

-- The sample table that every node carries.
select employee_id, full_name, position_title, salary
from cp.`employee.json`
order by salary desc, employee_id
limit 5;

select education_level, count(*) as employees, cast(avg(salary) as decimal(9, 2)) as average
from cp.`employee.json`
group by education_level
order by employees desc;

-- A Parquet file, named by its path.
select store_name, town, area_m2, opened, date '2026-01-01' - opened as age
from dfs.`examples/data/stores.parquet`
where monthly_rent > 6000
order by opened;

-- Both together.
select s.town, count(*) as employees, sum(e.salary) as salaries
from cp.`employee.json` e
join dfs.`examples/data/stores.parquet` s on e.store_id = s.store_id
group by s.town
order by employees desc, s.town
limit 5;
