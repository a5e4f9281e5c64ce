"""A pull as a person names it, turned into what the plugin is given for one: request, settings, connection.

Shared by the commands that say or try what a pull will do. The plugin's flags, with its defaults and its environment
variables, count as for the plugin. Asks the API server for a token as the kubelet does, where one is needed.
Decides nothing about pulls.

    arguments.add_arguments(parser)
    given = parser.parse_args()
    place = look(given)
    pull = find(given, find_settings(given, place), place)
    decision.resolve(pull.request, pull.settings, pull.connect)
"""
