<?php
// One request of a web application: a new process that knows its session's id. It counts its visits
// and does what its argument says: visit, regenerate, destroy.

[, $id, $action] = $argv;
session_id($id);
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
$_SESSION['cart'][] = ['item' => $_SESSION['visits'], 'text' => str_repeat('x', 1000)];
if ($action === 'regenerate') {
    session_regenerate_id(true);
}
echo $_SESSION['visits'], ' ', count($_SESSION['cart']), ' ', session_id(), "\n";
if ($action === 'destroy') {
    session_destroy();
} else {
    session_write_close();
}
