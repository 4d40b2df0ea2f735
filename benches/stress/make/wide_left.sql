-- 20 million rows of unique keys in no order, about 1.1 GB.
with digits(d) as (values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)),
     thousands as (select a.d + 10 * b.d + 100 * c.d as n from digits a, digits b, digits c),
     numbers as (select cast(a.n + 1000 * b.n + 1000000 * c.n as bigint) as n from thousands a, thousands b, thousands c where c.n < 20)
select (n * 7919 + 17) % 20000000 as k,
       n as a,
       n * 0.25::double as x,
       cast((n * 48271) % 2147483647 as varchar) || '-' || cast((n * 69621) % 2147483647 as varchar)
           || '-' || cast((n * 39373) % 2147483647 as varchar) as s
from numbers
