const ms = require('ms'); console.log(['a', 'b'], ms('2ms'));
