select * from lineitem order by l_shipdate, l_orderkey, l_linenumber limit 10 offset 17990000
