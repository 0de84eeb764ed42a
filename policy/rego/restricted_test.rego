package ward.levels.restricted_test

test_example_is_allowed if {
	count(data.ward.levels.restricted.deny) == 0 with input as data.ward.example
}
