-- 20 million rows of unique keys in no order, about 1.1 GB.
with digits(d) as (values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)),
     thousands as (select a.d + 10 * b.d + 100 * c.d as n from digits a, digits b, digits c),
     numbers as (select cast(a.n + 1000 * b.n + 1000000 * c.n as bigint) as n from thousands a, thousands b, thousands c where c.n < 20)
select (n * 104729 + 3) % 20000000 as k,
       n as b,
       n * 0.25::double as y,
       cast((n * 16807) % 2147483647 as varchar) || '-' || cast((n * 40692) % 2147483647 as varchar)
           || '-' || cast((n * 40014) % 2147483647 as varchar) as t
from numbers
