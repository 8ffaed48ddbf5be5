package format

// ObjectUsage describes --format of commands that print one object.
const ObjectUsage = "Format output using a custom template: 'json' or a Go template"

// DateLayout is how tables show a date.
const DateLayout = "2006-01-02 15:04:05 -0700 MST"

// Usage describes --format of commands that print a table.
const Usage = `Format output: 'table', 'table TEMPLATE', 'json', or a Go template`
